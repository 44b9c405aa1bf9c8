"""Where the runs lie that are learnt from: corpora of traces, feature tables, several as one."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from diagnoser import manifest, table
from diagnoser.dataset import load_samples
from diagnoser.extract import extract_all

if TYPE_CHECKING:
    from pathlib import Path

    from diagnoser.dataset import Sample
    from diagnoser.extract import Extracted
    from diagnoser.manifest import Run

LoadSamples = Callable[[Sequence["Run"]], list["Sample"]]


@dataclass(frozen=True)
class Source:
    """Runs, the checksum of their corpus, and what loads the samples of some of them."""

    runs: tuple[Run, ...]
    checksum: str
    samples: LoadSamples


def prepare(corpus: Path, workers: int) -> Extracted:
    """Read a corpus and bring its features up to date; says what was left out."""
    began = time.monotonic()
    found = extract_all(manifest.read(corpus), workers)
    for line in found.skipped[:20]:
        print(f"left out: {line}", file=sys.stderr)
    if len(found.skipped) > 20:
        folder = corpus / "features" / "skipped.txt"
        print(f"left out: {len(found.skipped) - 20} more, see {folder}", file=sys.stderr)
    _check([corpus], found.runs)
    seconds = time.monotonic() - began
    print(f"{len(found.runs)} runs, features in {seconds:.0f} s", file=sys.stderr)
    return found


def of_corpus(extracted: Extracted) -> Source:
    """The runs of a corpus of traces."""
    return Source(extracted.runs, extracted.manifest.checksum, partial(load_samples, extracted))


def of_table(folder: Path) -> Source:
    """The runs of a feature table."""
    packed = table.read(folder)
    return Source(packed.runs, packed.checksum, packed.samples)


def joined(sources: Sequence[Source]) -> Source:
    """Several as one, in their order. Raises :class:`~diagnoser.manifest.CorpusError` where two
    hold the same run."""
    if len(sources) == 1:
        return sources[0]
    owner: dict[str, int] = {}
    for number, source in enumerate(sources):
        for run in source.runs:
            if owner.setdefault(run.id, number) != number:
                raise manifest.CorpusError(f"two of the corpora hold the run {run.id}: pass one")

    def samples(runs: Sequence[Run]) -> list[Sample]:
        chosen = [[run for run in runs if owner[run.id] == at] for at in range(len(sources))]
        return [
            sample
            for source, own in zip(sources, chosen, strict=True)
            for sample in source.samples(own)
        ]

    runs = tuple(run for source in sources for run in source.runs)
    return Source(runs, table.joined(*(source.checksum for source in sources)), samples)


def read(folders: Sequence[Path], workers: int) -> Source:
    """The runs of corpora and feature tables. Raises :class:`~diagnoser.manifest.CorpusError`
    where they cannot be used."""
    found = joined(
        [
            of_table(folder) if table.is_table(folder) else of_corpus(prepare(folder, workers))
            for folder in folders
        ]
    )
    _check(folders, found.runs)
    return found


def load(folders: Sequence[Path], workers: int) -> Source:
    """The same, to be learnt from: refuses the final hold-out."""
    found = read(folders, workers)
    if any(run.final for run in found.runs):
        raise manifest.CorpusError(
            f"{_named(folders)} holds runs of the final hold-out, which no weights may have seen: "
            "train on another"
        )
    return found


def _check(folders: Sequence[Path], runs: Sequence[Run]) -> None:
    """Raises where nothing could be learnt."""
    if not any(run.faulty for run in runs) or all(run.faulty for run in runs):
        raise manifest.CorpusError(
            f"{_named(folders)} has no usable clean and faulty runs: both are needed, build it "
            "again"
        )


def _named(folders: Sequence[Path]) -> str:
    return ", ".join(str(folder) for folder in folders)
