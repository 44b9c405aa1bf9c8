"""``python -m diagnoser.evaluate``: figures on runs that trained nothing.

    python -m diagnoser.evaluate                # tables from the committed answers
    python -m diagnoser.evaluate --check        # and some of it again, from the feature tables
    python -m diagnoser.evaluate --corpus DIR   # train every fold and answer anew
    python -m diagnoser.evaluate --corpus DIR --also TABLE    # train on runs of a table too
    python -m diagnoser.evaluate --final DIR    # the shipped weights on the final hold-out, anew

Held out in turn: model-task pairs, families, the largest models, some operators of each root cause
(:mod:`diagnoser.holdout`). Every run is replayed through the engine; its answer is the engine's
state at the end of the trace. Runs of a table are learnt from, and held out, like any others, but
cannot be replayed: they are not asked about. Beside the network: contracts by rule, boosted trees
on the same features, and networks that lack one thing each. An interrupted evaluation goes on where
it was.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import torch

from diagnoser import manifest, predictions, schema, sources, weights
from diagnoser.ablation import ABLATIONS
from diagnoser.faults.observed import read_observability, unobservable
from diagnoser.fitting import Settings, fit
from diagnoser.holdout import TREES, plan
from diagnoser.predictions import Evaluation, PredictionsError
from diagnoser.replay import Prediction, replay
from diagnoser.report import README, pictures, report, write_between
from diagnoser.selfcheck import FINAL, TABLE, score_final, train_again
from diagnoser.trees import fit_trees

if TYPE_CHECKING:
    from collections.abc import Sequence

    from diagnoser.extract import Extracted
    from diagnoser.holdout import Fold
    from diagnoser.sources import Source

PICTURES = README.parents[1] / "docs" / "pictures"
PREDICTIONS = Path(__file__).parent / "weights" / "predictions.jsonl.gz"


@dataclass(frozen=True)
class Material:
    """What an evaluation has: runs with traces, and feature tables that it learns from too."""

    extracted: Extracted
    tables: tuple[Path, ...] = ()

    @property
    def source(self) -> Source:
        """All of it."""
        return sources.joined([*map(_table, self.tables), sources.of_corpus(self.extracted)])


_table = cache(sources.of_table)


def plan_folds(
    material: Material, count: int, settings: Settings, variants: Sequence[str]
) -> list[Fold]:
    """The folds over all runs; what each must answer for are those with traces."""
    at_hand = {run.id for run in material.extracted.runs}
    folds = [
        replace(fold, held=tuple(run for run in fold.held if run.id in at_hand))
        for fold in plan(material.source.runs, count, settings, variants)
    ]
    return [fold for fold in folds if fold.held]


def run_fold(material: Material, fold: Fold) -> list[Prediction]:
    """Train on a fold's training runs and replay its held-out ones; kept beside the corpus."""
    extracted, source = material.extracted, material.source
    kept = extracted.manifest.folder / "evaluation" / f"{_name(source, fold)}.json"
    if kept.is_file():
        return msgspec.json.decode(kept.read_bytes(), type=list[Prediction])
    samples = source.samples(fold.training)
    learn = fit_trees if fold.variant == TREES else fit
    trained = learn(samples, fold.settings)
    found = [replay(trained, run, extracted.features(run)) for run in fold.held]
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


def _quiet_start() -> None:
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)


def evaluate(material: Material, folds: list[Fold], workers: int, seed: int) -> Evaluation:
    """The answers of all folds."""
    source = material.source
    runs = source.runs
    result = Evaluation(
        {
            "corpus": source.checksum,
            "runs": len(runs),
            "answered": len(material.extracted.runs),
            "pairs": len({run.group for run in runs}),
            "families": sorted({run.family for run in runs}),
            "seed": seed,
        }
    )
    began = time.monotonic()
    with ProcessPoolExecutor(max(1, workers), initializer=_quiet_start) as pool:
        found = pool.map(partial(run_fold, material), folds)
        for fold, answers in zip(folds, found, strict=True):
            result.add(fold.view, fold.variant, fold.name, answers)
            seconds = time.monotonic() - began
            without = f" ({fold.variant})" if fold.variant else ""
            print(f"{seconds:5.0f} s  {fold.view}{without}: {fold.name}", file=sys.stderr)
    return result


def answer_final(found: Evaluation, corpus: Path, workers: int) -> None:
    """Put the shipped weights' answers to the final hold-out's traces among those found."""
    trained = weights.load()
    extracted = sources.prepare(corpus, workers)
    if not all(run.final for run in extracted.runs):
        raise manifest.CorpusError(
            f"{corpus} is not the final hold-out: build that with `python -m diagnoser.corpus "
            "build --final`"
        )
    answers = [replay(trained, run, extracted.features(run)) for run in extracted.runs]
    found.add("final", "", "final", answers)
    found.about["final"] = {
        "corpus": extracted.manifest.checksum,
        "runs": len(answers),
        "weights": weights.digest(),
    }


def without_stale(found: Evaluation) -> Evaluation:
    """The same; answers of other weights to the final hold-out are left out, and it is said."""
    final = found.about.get("final")
    if final is None or final["weights"] == weights.digest():
        return found
    print(
        "the answers to the final hold-out are of other weights than these: make them anew with "
        "--final DIR",
        file=sys.stderr,
    )
    kept = {key: parts for key, parts in found.answers.items() if key[0] != "final"}
    return Evaluation({k: v for k, v in found.about.items() if k != "final"}, kept)


def check(found: Evaluation, options: argparse.Namespace) -> int:
    """Do some of it again; exit status 0 where the answers are those kept, 1 where they are not, 3
    where a table is missing."""
    settings = Settings(epochs=options.epochs, seed=found.about.get("seed", 0))
    status = 0
    for comparing in (
        lambda: score_final(found, options.final_table, weights.load(), weights.digest()),
        lambda: train_again(
            found, options.table, settings, lambda text: print(text, file=sys.stderr)
        ),
    ):
        try:
            comparison = comparing()
        except (manifest.CorpusError, weights.WeightsError) as error:
            print(error, file=sys.stderr)
            status = status or 3
            continue
        print(f"\n{comparison.text()}")
        if not comparison.holds:
            status = 1
    return status


def main(arguments: Sequence[str] | None = None) -> int:
    """Evaluate and write the tables; exit status 0, 1 where a check does not hold, 3 where corpus
    or answers are unusable."""
    parser = argparse.ArgumentParser(prog="python -m diagnoser.evaluate", description=__doc__)
    parser.add_argument("--corpus", type=Path, help="folder with manifest.jsonl: train anew")
    parser.add_argument(
        "--also", type=Path, nargs="+", default=[], metavar="TABLE", help="train on these runs too"
    )
    parser.add_argument("--final", type=Path, help="the final hold-out's traces: answer anew")
    parser.add_argument("--check", action="store_true", help="train a fold again, score weights")
    parser.add_argument("--table", type=Path, default=TABLE, help="feature table of the corpus")
    parser.add_argument(
        "--final-table", type=Path, default=FINAL, help="feature table of the final hold-out"
    )
    parser.add_argument("--folds", type=int, default=4, help="folds of model-task pairs")
    parser.add_argument("--epochs", type=int, default=Settings.epochs)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument(
        "--variants",
        nargs="*",
        choices=[TREES, *ABLATIONS],
        default=[TREES, *ABLATIONS],
        help="what the network is compared with",
    )
    parser.add_argument("--readme", type=Path, default=README, help="file that takes the tables")
    parser.add_argument("--pictures", type=Path, default=PICTURES, help="folder for pictures")
    parser.add_argument("--predictions", type=Path, default=PREDICTIONS)
    options = parser.parse_args(arguments)
    try:
        if options.corpus is None:
            found = predictions.load(options.predictions)
        else:
            if TREES in options.variants and find_spec("sklearn") is None:
                raise manifest.CorpusError(
                    "trees need scikit-learn: install defaultpp-monitor[train], or leave them out "
                    "with --variants"
                )
            material = Material(
                sources.prepare(options.corpus, options.workers), tuple(options.also)
            )
            settings = Settings(epochs=options.epochs, seed=options.seed)
            folds = plan_folds(material, options.folds, settings, options.variants)
            if not folds:
                raise manifest.CorpusError(
                    "the corpus has a single model-task pair: nothing can be held out, add others"
                )
            found = evaluate(material, folds, options.workers, options.seed)
        if options.final is not None:
            answer_final(found, options.final, options.workers)
        if options.corpus is not None or options.final is not None:
            predictions.save(found, options.predictions)
        found = without_stale(found)
    except (manifest.CorpusError, PredictionsError, weights.WeightsError) as error:
        print(error, file=sys.stderr)
        return 3
    drawn = pictures(found, options.pictures)
    beside = options.readme.resolve().parent
    text = report(
        found,
        {title: Path(os.path.relpath(path, beside)).as_posix() for title, path in drawn.items()},
        [group.operator or "" for group in unobservable(read_observability().operators)],
    )
    write_between(options.readme, text)
    print(text)
    return check(found, options) if options.check else 0


if __name__ == "__main__":
    sys.exit(main())
