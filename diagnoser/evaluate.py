"""``python -m diagnoser.evaluate --corpus DIR``: figures on runs that trained nothing.

Two ways to hold out: model-task pairs (grouped folds), and one family at a time. Every run is
replayed through the engine; its answer is the engine's state at the end of the trace.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from diagnoser import manifest
from diagnoser.dataset import load_samples
from diagnoser.extract import Extracted
from diagnoser.fitting import Settings, fit
from diagnoser.model import Shape
from diagnoser.replay import Prediction, replay
from diagnoser.report import report, write_between
from diagnoser.train import prepare

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from diagnoser.manifest import Run

README = Path(__file__).parent / "README.md"
PREDICTIONS = Path(__file__).parent / "weights" / "predictions.jsonl"


@dataclass(frozen=True)
class Fold:
    """A training and the runs it must answer for. ``name`` says what was held out."""

    view: str
    name: str
    training: tuple[Run, ...]
    held: tuple[Run, ...]
    settings: Settings


def group_folds(runs: Sequence[Run], count: int) -> list[tuple[str, set[str]]]:
    """Model-task pairs dealt into ``count`` folds of about the same number of runs, families
    spread over the folds."""
    sizes: dict[str, int] = {}
    family: dict[str, str] = {}
    for run in runs:
        sizes[run.group] = sizes.get(run.group, 0) + 1
        family[run.group] = run.family
    folds: list[set[str]] = [set() for _ in range(min(count, len(sizes)))]
    for group in sorted(sizes, key=lambda g: (-sizes[g], g)):
        target = min(
            folds,
            key=lambda fold: (
                sum(family[g] == family[group] for g in fold),
                sum(sizes[g] for g in fold),
            ),
        )
        target.add(group)
    return [(", ".join(sorted(fold)), fold) for fold in folds]


def plan(runs: Sequence[Run], folds: int, settings: Settings, ablation: bool) -> list[Fold]:
    """All trainings of an evaluation: grouped folds, families left out with their kin, and the
    ablation."""
    flat = Settings(
        epochs=settings.epochs,
        patience=settings.patience,
        batch=settings.batch,
        learning_rate=settings.learning_rate,
        seed=settings.seed,
        shape=Shape(rounds=0),
    )
    planned = []
    grouped = group_folds(runs, folds)
    if len(grouped) > 1:
        views = [("pairs", settings), *([("ablation", flat)] if ablation else [])]
        for view, chosen in views:
            for name, held in grouped:
                planned.append(_fold(view, name, runs, _in_groups(held), chosen))
    lineages = sorted({run.lineage for run in runs})
    if len(lineages) > 1:
        for lineage in lineages:
            planned.append(_fold("families", lineage, runs, _in_lineage(lineage), settings))
    return planned


def _in_groups(groups: set[str]) -> Callable[[Run], bool]:
    return lambda run: run.group in groups


def _in_lineage(lineage: str) -> Callable[[Run], bool]:
    return lambda run: run.lineage == lineage


def _fold(
    view: str, name: str, runs: Sequence[Run], held: Callable[[Run], bool], settings: Settings
) -> Fold:
    return Fold(
        view,
        name,
        tuple(run for run in runs if not held(run)),
        tuple(run for run in runs if held(run)),
        settings,
    )


def run_fold(fold: Fold, extracted: Extracted) -> list[Prediction]:
    """Train on a fold's training runs and replay its held-out ones."""
    torch.set_num_threads(1)
    trained = fit(load_samples(extracted, fold.training), fold.settings)
    return [replay(trained, run, extracted.features(run)) for run in fold.held]


def _quiet_start() -> None:
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)


def evaluate(
    extracted: Extracted, folds: list[Fold], workers: int
) -> dict[str, dict[str, list[Prediction]]]:
    """Predictions by view and by what was held out."""
    result: dict[str, dict[str, list[Prediction]]] = {}
    began = time.monotonic()
    with ProcessPoolExecutor(max(1, workers), initializer=_quiet_start) as pool:
        found = pool.map(run_fold, folds, [extracted] * len(folds))
        for fold, predictions in zip(folds, found, strict=True):
            result.setdefault(fold.view, {})[fold.name] = predictions
            seconds = time.monotonic() - began
            print(f"{seconds:5.0f} s  {fold.view}: held out {fold.name}", file=sys.stderr)
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Evaluate and write the table; exit status 0, or 3 where the corpus cannot be used."""
    parser = argparse.ArgumentParser(prog="python -m diagnoser.evaluate", description=__doc__)
    parser.add_argument("--corpus", type=Path, required=True, help="folder with manifest.jsonl")
    parser.add_argument("--folds", type=int, default=4, help="folds of model-task pairs")
    parser.add_argument("--epochs", type=int, default=Settings.epochs)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--no-ablation", action="store_true", help="skip the network without edges")
    parser.add_argument("--readme", type=Path, default=README, help="file that takes the table")
    parser.add_argument("--predictions", type=Path, default=PREDICTIONS)
    options = parser.parse_args(arguments)
    try:
        extracted = prepare(options.corpus, options.workers)
        settings = Settings(epochs=options.epochs, seed=options.seed)
        folds = plan(extracted.runs, options.folds, settings, not options.no_ablation)
        if not folds:
            raise manifest.CorpusError(
                "the corpus has a single model-task pair: nothing can be held out, add others"
            )
    except manifest.CorpusError as error:
        print(error, file=sys.stderr)
        return 3
    found = evaluate(extracted, folds, options.workers)
    text = report(found, extracted, options.seed)
    write_between(options.readme, text)
    options.predictions.parent.mkdir(parents=True, exist_ok=True)
    with options.predictions.open("w", encoding="utf-8") as file:
        for view, parts in found.items():
            for name, predictions in parts.items():
                for prediction in predictions:
                    line = {"view": view, "held_out": name, **prediction.as_dict()}
                    file.write(json.dumps(line) + "\n")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
