"""What was built: a line per finished run, and an audit line per run that was not kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import msgspec

from diagnoser.corpus import CorpusError
from diagnoser.corpus.plan import Kind

MANIFEST = "manifest.jsonl"
AUDIT = "audit.jsonl"
RUNS = "runs"


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """A finished run. Its trace is ``runs/<id>.trace``."""

    id: str
    group: str
    """Model-task pair, ``family/task``."""
    scenario: int
    """Runs of one scenario share recipe and past."""
    family: str
    task: str
    size: str
    seed: int
    """From :data:`~diagnoser.corpus.FIRST_FINAL_SEED` on: of the final hold-out."""
    interval: int
    steps: int
    unseen_steps: int
    """Steps trained before the probe was attached."""
    kind: Kind
    change: str | None = None
    """For clean runs: the healthy change made at the step where others get their fault."""
    operator: str | None = None
    category: str | None = None
    root_cause: str | None = None
    layers: tuple[int, ...] = ()
    parameter: str | None = None
    value: str | float | None = None
    start_step: int | None = None
    """First step under the fault (or the change), as the trace counts steps."""
    recipe: dict[str, Any] = {}


class Audit(msgspec.Struct, frozen=True, kw_only=True):
    """A run that is not in the corpus, and why.

    ``discarded``: the fault changed nothing the probe can see. ``unfit``: no such fault fits the
    model, or the training diverged without one. ``crashed``: an exception. ``lost``: its process
    died or hung.
    """

    id: str
    event: Literal["discarded", "unfit", "crashed", "lost"]
    reason: str
    group: str
    operator: str | None = None
    category: str | None = None
    root_cause: str | None = None
    layers: tuple[int, ...] = ()
    parameter: str | None = None
    value: str | float | None = None


def trace_path(folder: Path, run: str) -> Path:
    """Where the run's trace lies."""
    return folder / RUNS / f"{run}.trace"


def read_lines(path: Path, kind: type[Any]) -> list[Any]:
    """The lines of a file that is appended to, also while it is; a last one without its end is left
    out. Raises :class:`CorpusError` for a damaged file."""
    if not path.is_file():
        return []
    lines = path.read_bytes().split(b"\n")[:-1]
    try:
        return [msgspec.json.decode(line, type=kind) for line in lines if line]
    except msgspec.DecodeError as error:
        raise CorpusError(f"{path} is damaged ({error}): delete the line, or build anew") from None


def mend(path: Path) -> None:
    """Takes a last line out that a kill cut off, before more is appended."""
    data = path.read_bytes() if path.is_file() else b""
    if data and not data.endswith(b"\n"):
        path.write_bytes(data[: data.rfind(b"\n") + 1])


def load(folder: Path) -> list[Entry]:
    """The finished runs, in the order they finished. Raises :class:`CorpusError` for none."""
    entries = read_lines(folder / MANIFEST, Entry)
    if not entries:
        raise CorpusError(
            f"no corpus in {folder}: make one with "
            f"`python -m diagnoser.corpus build --out {folder}`"
        )
    return entries


class Ledger:
    """Appends to the manifest and the audit of a folder; one process writes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._mended: set[Path] = set()
        self.entries: list[Entry] = read_lines(folder / MANIFEST, Entry)
        self.audits: list[Audit] = read_lines(folder / AUDIT, Audit)

    def settled(self, retry: bool = False) -> set[str]:
        """Ids that need no further run; with ``retry``, crashed and lost ones do."""
        failed = {"crashed", "lost"} if retry else set()
        settled = {audit.id for audit in self.audits if audit.event not in failed}
        return settled | {entry.id for entry in self.entries}

    def add(self, line: Entry | Audit) -> None:
        if isinstance(line, Entry):
            self.entries.append(line)
            path = self.folder / MANIFEST
        else:
            self.audits.append(line)
            path = self.folder / AUDIT
        if path not in self._mended:
            self.folder.mkdir(parents=True, exist_ok=True)
            mend(path)
            self._mended.add(path)
        with path.open("ab") as file:
            file.write(msgspec.json.encode(line) + b"\n")
