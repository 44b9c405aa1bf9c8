"""Trains the folds of an evaluation and takes their answers, in parallel; what is done is kept."""

from __future__ import annotations

import hashlib
import os
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import torch

from diagnoser import moments, schema, sources
from diagnoser.fitting import fit
from diagnoser.holdout import TREES
from diagnoser.replay import Prediction, replay
from diagnoser.trees import fit_trees

if TYPE_CHECKING:
    from diagnoser.extract import Extracted
    from diagnoser.holdout import Fold
    from diagnoser.sources import Source


@dataclass(frozen=True)
class Material:
    """What is learnt from: a corpus of traces, feature tables, or both.

    Asked about are the runs with traces, frame by frame; where there are none, those of the
    tables, at single moments (:mod:`diagnoser.moments`).
    """

    extracted: Extracted | None
    tables: tuple[Path, ...] = ()

    @property
    def source(self) -> Source:
        """All of it."""
        traces = [] if self.extracted is None else [sources.of_corpus(self.extracted)]
        return sources.joined([*map(_table, self.tables), *traces])

    @property
    def kept(self) -> Path:
        """Where finished folds lie."""
        folder = self.tables[0] if self.extracted is None else self.extracted.manifest.folder
        return folder / "evaluation"

    def asked(self, folds: Sequence[Fold]) -> list[Fold]:
        """The folds, each with those of its held-out runs that can be asked about."""
        if self.extracted is None:
            return list(folds)
        at_hand = {run.id for run in self.extracted.runs}
        found = [
            replace(fold, held=tuple(run for run in fold.held if run.id in at_hand))
            for fold in folds
        ]
        return [fold for fold in found if fold.held]


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
    kept = material.kept / f"{_name(source, fold)}.json"
    if kept.is_file():
        return msgspec.json.decode(kept.read_bytes(), type=list[Prediction])
    learn = fit_trees if fold.variant == TREES else fit
    trained = learn(source.samples(fold.training), fold.settings)
    if material.extracted is None:
        found = moments.answers(trained, source.samples(fold.held))
    else:
        features = material.extracted.features
        found = [replay(trained, run, features(run)) for run in fold.held]
    kept.parent.mkdir(exist_ok=True)
    partial_file = kept.with_suffix(".partial")
    partial_file.write_bytes(msgspec.json.encode(found))
    partial_file.replace(kept)
    return found


def _name(source: Source, fold: Fold) -> str:
    """Of everything that a fold's answers depend on: another code gives other answers too."""
    runs = [run.id for run in fold.training] + [""] + [run.id for run in fold.held]
    parts = [source.checksum, schema.digest(), fold.variant, repr(fold.settings), *runs]
    code = b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))
    return hashlib.sha256("\n".join(parts).encode() + code).hexdigest()[:24]
