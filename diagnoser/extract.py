"""Features of every frame of a corpus's runs, computed once and cached beside the traces.

``DIR/features/ID.npz`` holds, for F frames: the features of every node kind (F, sites, features)
in float16, the rules met, steps, and the contracts that fire at the end. Nothing pickled.
A cached file is used while the trace and the feature definitions are the same.
"""

from __future__ import annotations

import json
import os
import zipfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

from diagnoser import columns, features, rules, schema
from diagnoser.contracts import ContractWatch, Firing, fired_rules
from diagnoser.features import RollingFeatures
from diagnoser.graph import Graph, build
from probe.schema import Frame, Header, SchemaError, decode_record, encode
from probe.trace import TraceError, load

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from diagnoser.manifest import Manifest, Run

CACHE_VERSION = 5


@dataclass
class RunFeatures:
    """All frames of a run. ``nodes``: kind -> (F, sites, features) float16."""

    header: Header
    steps: npt.NDArray[np.int64]
    measured: npt.NDArray[np.float32]
    fired: npt.NDArray[np.float32]
    """(F, rules), 0 or 1: which rules of the contracts are met."""
    any_fired: npt.NDArray[np.bool_]
    """(F,) whether any contract fires, with a rule or without."""
    cache_seen: npt.NDArray[np.bool_]
    """Frames that measured the KV cache anew."""
    nodes: dict[str, npt.NDArray[np.float16]]
    firings: tuple[Firing, ...]
    """After the last frame."""

    @property
    def graph(self) -> Graph:
        return build(self.header.anatomy, schema.node_kinds())

    def at(self, frame: int) -> dict[str, npt.NDArray[np.float16]]:
        """Features after one frame: kind -> (sites, features)."""
        return {kind: values[frame] for kind, values in self.nodes.items()}


def extract(trace: Path) -> RunFeatures:
    """Replay a trace through the rolling features. Raises ``ValueError`` or ``OSError``."""
    rolling: RollingFeatures | None = None
    watch: ContractWatch | None = None
    header: Header | None = None
    per_frame = []
    steps, measured, said, seen = [], [], [], []
    for record in load(trace):
        if isinstance(record, Header):
            if header is not None and record.anatomy.sites != header.anatomy.sites:
                raise ValueError("the model's sites change within the run")
            header = record
            if rolling is None or watch is None:
                rolling = RollingFeatures(record)
                watch = ContractWatch(rolling.columns)
            else:
                rolling.rebind(record)
                watch.rebind(rolling.columns)
        elif isinstance(record, Frame):
            if rolling is None or watch is None or header is None:
                raise ValueError("a frame comes before the header")
            if record.rank != header.rank:
                continue
            cache = np.array([kind == "kv_cache" for kind in rolling.columns.kinds])
            found = rolling.update(record)
            watch.update(record)
            per_frame.append(found.nodes)
            steps.append(record.step)
            measured.append(found.measured)
            firings = watch.firings()
            said.append(np.append(fired_rules(firings), np.float32(bool(firings))))
            seen.append(bool(np.isfinite(rolling.columns.values(record)[cache]).any()))
    if header is None or watch is None or not per_frame:
        raise ValueError("the trace holds no frame")
    nodes = {
        kind: np.stack([found[kind] for found in per_frame]).astype(np.float16)
        for kind in per_frame[0]
    }
    return RunFeatures(
        header=header,
        steps=np.array(steps, dtype=np.int64),
        measured=np.array(measured, dtype=np.float32),
        fired=np.stack(said)[:, :-1],
        any_fired=np.stack(said)[:, -1] > 0,
        cache_seen=np.array(seen, dtype=bool),
        nodes=nodes,
        firings=watch.firings(),
    )


def _stamp(trace: Path) -> str:
    """What a cached file must carry to be used: the trace's identity and the definitions'."""
    info = trace.stat()
    code = [CACHE_VERSION, schema.digest(), features.WINDOW, features.PAST, columns.DTYPE_FLOOR]
    return json.dumps([info.st_size, info.st_mtime_ns, code, rules.rules_digest()], sort_keys=True)


def _write(path: Path, found: RunFeatures, stamp: str) -> None:
    about = {"stamp": stamp, "firings": [asdict(firing) for firing in found.firings]}
    temporary = path.with_suffix(f".{os.getpid()}.partial")
    arrays = {f"node_{kind}": values for kind, values in found.nodes.items()}
    with temporary.open("wb") as file:
        np.savez(
            file,
            header=np.frombuffer(encode(found.header), dtype=np.uint8),
            about=np.frombuffer(json.dumps(about).encode(), dtype=np.uint8),
            steps=found.steps,
            measured=found.measured,
            fired=found.fired,
            any_fired=found.any_fired,
            cache_seen=found.cache_seen,
            **arrays,  # type: ignore[arg-type]
        )
    temporary.replace(path)


def read_cached(path: Path, stamp: str | None = None) -> RunFeatures | None:
    """A cached file, or None where it is missing, damaged or (with ``stamp``) out of date."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            about = json.loads(stored["about"].tobytes())
            if stamp is not None and about["stamp"] != stamp:
                return None
            header = decode_record(stored["header"].tobytes())
            if not isinstance(header, Header):
                return None
            firings = tuple(
                Firing(**{**item, "causes": tuple(item["causes"])}) for item in about["firings"]
            )
            return RunFeatures(
                header=header,
                steps=stored["steps"],
                measured=stored["measured"],
                fired=stored["fired"],
                any_fired=stored["any_fired"],
                cache_seen=stored["cache_seen"],
                nodes={
                    name.removeprefix("node_"): stored[name]
                    for name in stored.files
                    if name.startswith("node_")
                },
                firings=firings,
            )
    except (OSError, ValueError, KeyError, TypeError, SchemaError, zipfile.BadZipFile):
        return None


def _is_current(path: Path, stamp: str) -> bool:
    try:
        with np.load(path, allow_pickle=False) as stored:
            return json.loads(stored["about"].tobytes())["stamp"] == stamp
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return False


def _one(trace: Path, target: Path) -> str | None:
    """Bring one run's cache up to date; the reason where it cannot be."""
    try:
        stamp = _stamp(trace)
        if _is_current(target, stamp):
            return None
        _write(target, extract(trace), stamp)
    except (OSError, ValueError, TraceError, SchemaError) as error:
        target.unlink(missing_ok=True)
        return f"{trace.name}: {error}"
    return None


@dataclass
class Extracted:
    """The runs whose features are at hand, and why others were left out."""

    manifest: Manifest
    runs: tuple[Run, ...]
    skipped: tuple[str, ...]

    def features(self, run: Run) -> RunFeatures:
        """The cached features of a run of this corpus."""
        found = read_cached(self.manifest.folder / "features" / f"{run.id}.npz")
        if found is None:
            raise ValueError(f"the cached features of {run.id} vanished: run the command again")
        return found


def extract_all(manifest: Manifest, workers: int = 2) -> Extracted:
    """Features of every run of a corpus; reasons of those left out go to
    ``DIR/features/skipped.txt`` too."""
    folder = manifest.folder / "features"
    folder.mkdir(exist_ok=True)
    traces = [manifest.trace(run) for run in manifest.runs]
    targets = [folder / f"{run.id}.npz" for run in manifest.runs]
    if workers > 1:
        with ProcessPoolExecutor(workers) as pool:
            reasons = list(pool.map(_one, traces, targets, chunksize=8))
    else:
        reasons = [_one(trace, target) for trace, target in zip(traces, targets, strict=True)]
    good = tuple(run for run, why in zip(manifest.runs, reasons, strict=True) if why is None)
    skipped = (*manifest.skipped, *(reason for reason in reasons if reason is not None))
    (folder / "skipped.txt").write_text("".join(f"{line}\n" for line in skipped), encoding="utf-8")
    return Extracted(manifest, good, skipped)
