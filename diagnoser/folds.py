"""Trains the folds of an evaluation and takes their answers, in parallel; what is done is kept."""

from __future__ import annotations

import hashlib
import os
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import torch

from diagnoser import moments, schema, sources, table
from diagnoser.fitting import fit
from diagnoser.holdout import TREES
from diagnoser.replay import Prediction, Scorer, replay
from diagnoser.trees import fit_trees

if TYPE_CHECKING:
    from diagnoser.extract import Extracted
    from diagnoser.holdout import Fold
    from diagnoser.manifest import Run
    from diagnoser.sources import Source


@dataclass(frozen=True)
class Material:
    """What is learnt from and what is asked about.

    ``traces``: corpora whose runs are asked about, frame by frame; without any, the runs of
    ``learnt`` are, at single moments (:mod:`diagnoser.moments`). ``learnt``: a feature table;
    without it, the traces are learnt from too.
    """

    traces: tuple[Extracted, ...] = ()
    learnt: Path | None = None

    @property
    def source(self) -> Source:
        """What is learnt from."""
        if self.learnt is not None:
            return _table(self.learnt)
        return sources.joined([sources.of_corpus(found) for found in self.traces])

    @property
    def asked(self) -> tuple[Run, ...]:
        """The runs that are asked about."""
        return tuple(self._owners) if self.traces else self.source.runs

    @property
    def asked_checksum(self) -> str:
        """Of the corpora that are asked about."""
        if not self.traces:
            return self.source.checksum
        return table.joined(*(found.manifest.checksum for found in self.traces))

    @property
    def kept(self) -> Path:
        """Where finished folds lie."""
        folder = self.traces[0].manifest.folder if self.traces else self.learnt
        assert folder is not None, "neither traces nor a table"
        return folder / "evaluation"

    def answers(self, trained: Scorer, runs: Sequence[Run]) -> list[Prediction]:
        """What a learner says of some of the runs that are asked about."""
        if not self.traces:
            return moments.answers(trained, self.source.samples(runs))
        owners = self._owners
        return [replay(trained, run, owners[run].features(run)) for run in runs]

    @property
    def _owners(self) -> dict[Run, Extracted]:
        return {run: found for found in self.traces for run in found.runs}


_table = cache(sources.of_table)


def answers_of(
    material: Material, folds: Sequence[Fold], workers: int
) -> Iterator[tuple[Fold, list[Prediction]]]:
    """Every fold with its answers, in order; how far it is goes to standard error."""
    began = time.monotonic()
    with ProcessPoolExecutor(max(1, workers), initializer=_quiet_start) as pool:
        found = pool.map(partial(run_fold, material), folds)
        for fold, answers in zip(folds, found, strict=True):
            seconds = time.monotonic() - began
            without = f" ({fold.variant})" if fold.variant else ""
            print(f"{seconds:5.0f} s  {fold.view}{without}: {fold.name}", file=sys.stderr)
            yield fold, answers


def _quiet_start() -> None:
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)


def run_fold(material: Material, fold: Fold) -> list[Prediction]:
    """Train on a fold's training runs and ask about its held-out ones."""
    source = material.source
    kept = material.kept / f"{_name(material, fold)}.json"
    if kept.is_file():
        return msgspec.json.decode(kept.read_bytes(), type=list[Prediction])
    learn = fit_trees if fold.variant == TREES else fit
    trained = learn(source.samples(fold.training), fold.settings)
    found = material.answers(trained, fold.held)
    kept.parent.mkdir(exist_ok=True)
    partial_file = kept.with_suffix(".partial")
    partial_file.write_bytes(msgspec.json.encode(found))
    partial_file.replace(kept)
    return found


def _name(material: Material, fold: Fold) -> str:
    """Of everything that a fold's answers depend on: another code gives other answers too."""
    runs = [run.id for run in fold.training] + [""] + [run.id for run in fold.held]
    of = [material.source.checksum, material.asked_checksum, schema.digest()]
    parts = [*of, fold.variant, repr(fold.settings), *runs]
    code = b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))
    return hashlib.sha256("\n".join(parts).encode() + code).hexdigest()[:24]
