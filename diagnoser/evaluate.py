"""``python -m diagnoser.evaluate``: figures on runs that trained nothing.

    python -m diagnoser.evaluate                # tables from the committed answers
    python -m diagnoser.evaluate --check        # and some of it again, from the feature tables
    python -m diagnoser.evaluate --corpus DIR   # train every fold and answer anew
    python -m diagnoser.evaluate --ask DIR...   # ... on the feature table, and ask about traces
    python -m diagnoser.evaluate --final DIR    # the shipped weights on the final hold-out, anew
    python -m diagnoser.evaluate --fresh DIR    # ... and on trainings built since

Held out in turn: model-task pairs, families, the largest models, some operators of each root cause
(:mod:`diagnoser.holdout`). Every run is replayed through the engine; its answer is the engine's
state at the end of the trace. A feature table holds no traces: with ``--ask`` its runs are learnt
from, and those of the folders are asked about, each by a network that its group was held out from.
An interrupted evaluation goes on where it was. What the network is compared with:
:mod:`diagnoser.compare`.
"""

from __future__ import annotations

import argparse
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from diagnoser import manifest, predictions, sources, table, weights
from diagnoser.faults.observed import read_observability, unobservable
from diagnoser.fitting import Settings
from diagnoser.folds import Material, answers_of
from diagnoser.holdout import plan
from diagnoser.predictions import Evaluation, PredictionsError
from diagnoser.replay import replay
from diagnoser.report import COMPARED, README, pictures, report, write_between
from diagnoser.selfcheck import FINAL, TABLE, score_final, there, train_again

if TYPE_CHECKING:
    from collections.abc import Sequence

    from diagnoser.holdout import Fold

PICTURES = README.parents[1] / "docs" / "pictures"
SHIPPED = {"final": "the final hold-out", "fresh": "fresh trainings"}
"""Views that the shipped weights answer, and what they are of."""
PREDICTIONS = Path(__file__).parent / "weights" / "predictions.jsonl.gz"


def evaluate(material: Material, folds: list[Fold], workers: int, seed: int) -> Evaluation:
    """The answers of all folds."""
    runs = material.source.runs
    result = Evaluation(
        {
            "corpus": material.source.checksum,
            "runs": len(runs),
            "answered": len(material.asked),
            "asked": material.asked_checksum,
            "pairs": len({run.group for run in runs}),
            "families": sorted({run.family for run in runs}),
            "seed": seed,
        }
    )
    for fold, answers in answers_of(material, folds, workers):
        result.add(fold.view, fold.variant, fold.name, answers)
    return result


def answer_shipped(found: Evaluation, view: str, corpus: Path, workers: int, seen: Path) -> None:
    """Put the shipped weights' answers to a corpus's traces among those found, as ``final``, the
    final hold-out, or ``fresh``. ``seen``: the feature table that they were trained on."""
    trained = weights.load()
    extracted = sources.prepare(corpus, workers)
    if view == "final" and not all(run.final for run in extracted.runs):
        raise manifest.CorpusError(
            f"{corpus} is not the final hold-out: build that with `python -m diagnoser.corpus "
            "build --final`"
        )
    if view == "fresh":
        known = {run.id for run in table.read(seen).runs}
        if any(run.id in known or run.final for run in extracted.runs):
            raise manifest.CorpusError(
                f"{corpus} holds runs of {seen}, or of the final hold-out: build others with "
                f"`python -m diagnoser.corpus build --after {seen}`"
            )
    answers = [replay(trained, run, extracted.features(run)) for run in extracted.runs]
    found.add(view, "", view, answers)
    found.about[view] = {
        "corpus": extracted.manifest.checksum,
        "runs": len(answers),
        "weights": weights.digest(),
    }


def without_stale(found: Evaluation) -> Evaluation:
    """The same; answers of other weights than those shipped are left out, and it is said."""
    about, answers = dict(found.about), dict(found.answers)
    for view, what in SHIPPED.items():
        if view in about and about[view]["weights"] != weights.digest():
            print(
                f"the answers to {what} are of other weights than these: make them anew "
                f"with --{view} DIR",
                file=sys.stderr,
            )
            del about[view]
            answers = {key: parts for key, parts in answers.items() if key[0] != view}
    return Evaluation(about, answers)


def material_of(options: argparse.Namespace) -> Material:
    """What ``--corpus`` or ``--ask`` means. Raises :class:`~diagnoser.manifest.CorpusError` where a
    folder cannot be used, or names runs twice."""
    if options.corpus is not None:
        if options.ask:
            raise manifest.CorpusError(
                "--corpus learns from the traces that it asks about, --ask from the feature table: "
                "give one of them"
            )
        return Material((sources.prepare(options.corpus, options.workers),))
    traces = tuple(sources.prepare(folder, options.workers) for folder in options.ask)
    sources.joined([sources.of_corpus(found) for found in traces])  # raises where runs are twice
    return Material(traces, there(options.table, "feature table"))


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


def add_common(parser: argparse.ArgumentParser) -> None:
    """Arguments of an evaluation and of what is compared with it."""
    parser.add_argument("--folds", type=int, default=4, help="folds of model-task pairs")
    parser.add_argument("--epochs", type=int, default=Settings.epochs)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--readme", type=Path, default=README, help="file that takes the tables")
    parser.add_argument("--pictures", type=Path, default=PICTURES, help="folder for pictures")
    parser.add_argument("--predictions", type=Path, default=PREDICTIONS)


def write(found: Evaluation, options: argparse.Namespace) -> str:
    """Put the tables and pictures in their places; the tables."""
    drawn = pictures(found, options.pictures)
    beside = options.readme.resolve().parent
    text = report(
        found,
        {title: Path(os.path.relpath(path, beside)).as_posix() for title, path in drawn.items()},
        [group.operator or "" for group in unobservable(read_observability().operators)],
    )
    write_between(options.readme, text)
    return text


def main(arguments: Sequence[str] | None = None) -> int:
    """Evaluate and write the tables; exit status 0, 1 where a check does not hold, 3 where corpus
    or answers are unusable."""
    parser = argparse.ArgumentParser(prog="python -m diagnoser.evaluate", description=__doc__)
    parser.add_argument("--corpus", type=Path, help="folder with manifest.jsonl: train anew")
    parser.add_argument(
        "--ask", type=Path, nargs="+", default=[], metavar="DIR", help="train on --table, ask these"
    )
    parser.add_argument("--final", type=Path, help="the final hold-out's traces: answer anew")
    parser.add_argument("--fresh", type=Path, help="traces built since the weights: answer anew")
    parser.add_argument("--check", action="store_true", help="train a fold again, score weights")
    parser.add_argument("--table", type=Path, default=TABLE, help="feature table of the corpus")
    parser.add_argument(
        "--final-table", type=Path, default=FINAL, help="feature table of the final hold-out"
    )
    add_common(parser)
    options = parser.parse_args(arguments)
    try:
        if options.corpus is None and not options.ask:
            found = predictions.load(options.predictions)
        else:
            material = material_of(options)
            runs = material.source.runs
            settings = Settings(epochs=options.epochs, seed=options.seed)
            folds = plan(runs, options.folds, settings, asked=material.asked)
            if not folds:
                raise manifest.CorpusError(
                    "the corpus has a single model-task pair: nothing can be held out, add others"
                )
            found = evaluate(material, folds, options.workers, options.seed)
            with suppress(PredictionsError):  # these say themselves what they are of
                kept = predictions.load(options.predictions)
                found.adopt(kept, COMPARED.values(), "compared")
                for view in SHIPPED:
                    found.adopt(kept, (view,), view)
        asked = {view: getattr(options, view) for view in SHIPPED}
        for view, folder in asked.items():
            if folder is not None:
                answer_shipped(found, view, folder, options.workers, options.table)
        if any([options.corpus, options.ask, *asked.values()]):
            predictions.save(found, options.predictions)
        found = without_stale(found)
    except (manifest.CorpusError, PredictionsError, weights.WeightsError) as error:
        print(error, file=sys.stderr)
        return 3
    print(write(found, options))
    return check(found, options) if options.check else 0


if __name__ == "__main__":
    sys.exit(main())
