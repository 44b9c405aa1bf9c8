"""Reads a corpus for what its faults move (:mod:`diagnoser.observability`).

Each trace is read once. What a scenario shows is kept in a file as soon as it is known, so that the
command goes on where it was ended, and takes in what a corpus has grown by.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from diagnoser import schema
from diagnoser.columns import Columns
from diagnoser.contracts import ContractWatch
from diagnoser.corpus import CorpusError
from diagnoser.corpus.manifest import MANIFEST, Entry, load, trace_path
from diagnoser.observability import Label, Observability, Observed, Recorded, observe, summarise
from diagnoser.rules import RULES
from probe import trace
from probe.nodes import kind_of
from probe.schema import Frame, Header, SchemaError

KEPT = "observed.jsonl"
METHOD = 3
"""Changes with :func:`diagnoser.observability.observe`: what was kept before is computed anew."""

Unread = tuple[str, str]
"""A run's id, and why it says nothing."""


def recorded(path: Path) -> Recorded:
    """A trace's frames. Columns that are measured on rare frames keep their last value.

    Raises :class:`ValueError` for a trace without frames or of other metrics, :class:`OSError`.
    """
    columns: Columns | None = None
    watch: ContractWatch | None = None
    frames: list[tuple[Columns, npt.NDArray[np.float32]]] = []
    steps: list[int] = []
    fired: list[frozenset[str]] = []
    for record in trace.load(path):
        if isinstance(record, Header):
            columns = Columns(record)
            if watch is None:
                watch = ContractWatch(columns)
            else:
                watch.rebind(columns)
        elif isinstance(record, Frame) and columns is not None and watch is not None:
            watch.update(record)
            frames.append((columns, columns.transform(columns.values(record))))
            steps.append(record.step)
            fired.append(_fired(watch))
    if columns is None or not frames:
        raise ValueError("the trace holds no frame")
    names = tuple(
        f"{kind}/{metric.name}" for kind, metric in zip(columns.kinds, columns.metrics, strict=True)
    )
    values = _in_order(frames, columns)
    return Recorded(
        np.array(steps, dtype=np.int64), columns.keys, names, columns.floor, values, tuple(fired)
    )


_SOFT = frozenset((node, rule.metric) for rule in RULES if rule.soft for node in rule.nodes)
_SOFT -= {(node, rule.metric) for rule in RULES if not rule.soft for node in rule.nodes}
"""Contracts that a healthy model may miss."""


def _fired(watch: ContractWatch) -> frozenset[str]:
    return frozenset(
        f"{firing.site}/{firing.metric}"
        for firing in watch.firings()
        if (kind_of(firing.node), firing.metric) not in _SOFT
    )


def _in_order(
    frames: list[tuple[Columns, npt.NDArray[np.float32]]], last: Columns
) -> npt.NDArray[np.float32]:
    """(F, C): all frames under the last header's columns, rare ones carried on."""
    place = {key: number for number, key in enumerate(last.keys)}
    values = np.full((len(frames), len(last)), np.nan, dtype=np.float32)
    for row, (columns, found) in enumerate(frames):
        if columns is last:
            values[row] = found
            continue
        for key, value in zip(columns.keys, found, strict=True):
            if key in place:
                values[row, place[key]] = value
    rare = np.flatnonzero(last.carried)
    for row in range(1, len(values)):
        here = values[row, rare]
        values[row, rare] = np.where(np.isnan(here), values[row - 1, rare], here)
    return values


def _label(entry: Entry) -> Label:
    cause = f"{entry.category}/{entry.root_cause}" if entry.kind == "faulty" else None
    return Label(
        id=entry.id,
        family=entry.family,
        cause=cause,
        operator=entry.operator,
        value=entry.value,
    )


def _scenarios(entries: list[Entry]) -> Iterator[tuple[Entry, list[Entry]]]:
    """Each scenario's clean run and its other branches."""
    found: dict[int, list[Entry]] = {}
    for entry in entries:
        found.setdefault(entry.scenario, []).append(entry)
    for members in found.values():
        twins = [entry for entry in members if entry.kind == "clean" and entry.change is None]
        others = [entry for entry in members if entry.start_step is not None]
        if twins and others:
            yield twins[0], others


def _checksum(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


class _Kept:
    """What earlier commands observed, under the same definitions."""

    def __init__(self, file: Path) -> None:
        self._file = file
        stamp = f"{METHOD} {schema.digest()} {_checksum(repr(RULES).encode())}"
        self.observed: dict[str, Observed] = {}
        lines = file.read_bytes().split(b"\n")[:-1] if file.is_file() else []
        if not lines or lines[0] != stamp.encode():
            file.write_text(f"{stamp}\n", encoding="utf-8")
            return
        for line in lines[1:]:
            found = msgspec.json.decode(line, type=Observed)
            self.observed[found.label.id] = found
        file.write_bytes(b"".join(line + b"\n" for line in lines))  # without a torn last line

    def add(self, found: list[Observed]) -> None:
        self.observed |= {observed.label.id: observed for observed in found}
        with self._file.open("ab") as file:
            file.write(b"".join(msgspec.json.encode(observed) + b"\n" for observed in found))


def observe_corpus(
    folder: Path,
    kept: Path | None = None,
    report: Callable[[int, int], None] = lambda done, of: None,
) -> tuple[Observability, list[Unread]]:
    """What shows the faults of the corpus in ``folder``, and the runs that could not be read.

    ``kept``: the file for what was observed of single runs (default ``FOLDER/observed.jsonl``).
    ``report(done, of)`` is called after each scenario. Raises :class:`CorpusError` for no corpus,
    or where no faulty run can be read.
    """
    entries = load(folder)
    store = _Kept(kept or folder / KEPT)
    scenarios = list(_scenarios(entries))
    unread: list[Unread] = []
    for number, (twin, branches) in enumerate(scenarios, start=1):
        missing = [entry for entry in branches if entry.id not in store.observed]
        if missing:
            store.add(_observe(folder, twin, missing, unread))
        report(number, len(scenarios))
    checksum = _checksum((folder / MANIFEST).read_bytes())
    ids = [entry.id for _, branches in scenarios for entry in branches]
    observed = [store.observed[run] for run in ids if run in store.observed]
    if not any(run.label.cause for run in observed):
        why = f" ({unread[0][1]})" if unread else ""
        raise CorpusError(f"no faulty run in {folder} can be read beside its clean one{why}")
    return summarise(checksum, observed), unread


def _observe(
    folder: Path, twin: Entry, branches: list[Entry], unread: list[Unread]
) -> list[Observed]:
    found = []
    clean: Recorded | None = None
    for entry in (twin, *branches):
        try:
            here = recorded(trace_path(folder, entry.id))
        except (OSError, ValueError, trace.TraceError, SchemaError) as error:
            unread.append((entry.id, str(error)))
            if clean is None:
                break
            continue
        if clean is None:
            clean = here
        else:
            found.append(observe(_label(entry), clean, here, entry.start_step or 0))
    return found
