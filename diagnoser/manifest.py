"""A corpus's manifest: one JSON line a run, and where its trace lies."""

from __future__ import annotations

import hashlib
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from diagnoser.corpus import FIRST_FINAL_SEED
from diagnoser.taxonomy import root_causes

LINEAGES = {
    "roberta": "bert",
    "electra": "bert",
    "albert": "bert",
    "mistral": "llama",
    "qwen2": "llama",
    "qwen3": "llama",
    "gemma": "llama",
    "phi3": "llama",
}
"""Families built like another: to have seen one is to have nearly seen the other."""


class CorpusError(ValueError):
    """A corpus that cannot be used. The message says what to do."""


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """A labelled run. Frames before ``start_step`` of a faulty run are healthy."""

    id: str
    group: str
    """Model-task pair, e.g. ``bert/which_module``; what is held out together."""
    family: str
    task: str
    size: str = ""
    """``LAYERSxWIDTH…`` of the model, e.g. ``5x32h2/2v2048``."""
    kind: str
    """``clean`` or ``faulty``."""
    category: str | None = None
    root_cause: str | None = None
    operator: str | None = None
    layers: tuple[int, ...] = ()
    start_step: int | None = None
    interval: int = 1
    seed: int = 0
    scenario: int = -1
    """Number of its scenario in the plan; -1: of none."""

    @property
    def final(self) -> bool:
        """Whether the run is of the final hold-out, which is never trained on."""
        return self.seed >= FIRST_FINAL_SEED

    @property
    def lineage(self) -> str:
        """The family whose layout this one shares; they are left out together."""
        return LINEAGES.get(self.family, self.family)

    @property
    def cells(self) -> int:
        """Layers times width; 0 where the manifest does not say."""
        found = re.match(r"(\d+)x(\d+)", self.size)
        return int(found[1]) * int(found[2]) if found else 0

    @property
    def faulty(self) -> bool:
        return self.kind == "faulty"

    @property
    def key(self) -> str | None:
        """``category/root_cause``, None where clean."""
        return f"{self.category}/{self.root_cause}" if self.faulty else None

    @property
    def start(self) -> int:
        """First step that may be faulty; beyond every step where clean."""
        return (self.start_step or 0) if self.faulty else 2**62


@dataclass(frozen=True)
class Manifest:
    """The runs of a corpus, the lines left out (with reasons), and a checksum of the file."""

    folder: Path
    runs: tuple[Run, ...]
    skipped: tuple[str, ...]
    checksum: str

    def trace(self, run: Run) -> Path:
        return self.folder / "runs" / f"{run.id}.trace"

    def lines(self) -> dict[str, bytes]:
        """Run id -> its line in the file, which says more than a :class:`Run` holds."""
        found = {}
        for line in (self.folder / "manifest.jsonl").read_bytes().splitlines():
            with suppress(msgspec.DecodeError):
                found[msgspec.json.decode(line, type=Run).id] = line
        return found


def read(folder: Path) -> Manifest:
    """Read ``DIR/manifest.jsonl``. A bad line is left out with its reason; a run that stands
    twice counts with its last line. Raises :class:`CorpusError` where there is nothing to use."""
    path = folder / "manifest.jsonl"
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CorpusError(
            f"no manifest at {path} ({error.strerror}): build the corpus with "
            "`python -m diagnoser.corpus`"
        ) from None
    runs: dict[str, Run] = {}
    skipped = []
    decoder = msgspec.json.Decoder(Run)
    for number, line in enumerate(data.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            run = decoder.decode(line)
            _check(run)
        except (msgspec.DecodeError, ValueError) as error:
            skipped.append(f"manifest line {number}: {error}")
            continue
        runs[run.id] = run
    if not runs:
        raise CorpusError(f"{path} lists no usable run: build the corpus again")
    return Manifest(
        folder, tuple(runs.values()), tuple(skipped), hashlib.sha256(data).hexdigest()[:16]
    )


def _check(run: Run) -> None:
    if run.kind not in ("clean", "faulty"):
        raise ValueError(f"run {run.id}: kind is {run.kind!r}, not clean or faulty")
    if run.faulty and run.key not in root_causes():
        raise ValueError(f"run {run.id}: {run.key} is no root cause of the taxonomy")
    if "/" in run.id or run.id.startswith("."):
        raise ValueError(f"run id {run.id!r} is no file name")
