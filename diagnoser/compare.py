"""``python -m diagnoser.compare``: the network beside what is simpler, and without one thing each.

    python -m diagnoser.compare                       # every baseline, as long as it takes
    python -m diagnoser.compare --views pairs         # one way of holding out alone

Contracts by rule, gradient-boosted trees on the same features, and networks that lack one thing
each (:data:`diagnoser.ablation.ABLATIONS`), trained on the same runs and asked about the same ones.
It needs the feature table alone, so that all are asked at single moments
(:mod:`diagnoser.moments`), the network too: compare these with each other, not with the rolling
engine's. Trees and the network without message passing are trained whatever is held out, the others
where pairs are. An interrupted comparison goes on where it was.
"""

from __future__ import annotations

import argparse
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from diagnoser import evaluate, predictions
from diagnoser.ablation import ABLATIONS
from diagnoser.fitting import Settings
from diagnoser.folds import Material, answers_of
from diagnoser.holdout import TREES, plan
from diagnoser.manifest import CorpusError
from diagnoser.predictions import PredictionsError
from diagnoser.report import COMPARED
from diagnoser.selfcheck import TABLE

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare and write the tables; exit status 0, or 3 where table or answers are unusable."""
    parser = argparse.ArgumentParser(prog="python -m diagnoser.compare", description=__doc__)
    parser.add_argument("--table", type=Path, default=TABLE, help="feature table of the corpus")
    parser.add_argument("--views", nargs="+", choices=list(COMPARED), default=list(COMPARED))
    parser.add_argument(
        "--variants", nargs="*", choices=[TREES, *ABLATIONS], default=[TREES, *ABLATIONS]
    )
    evaluate.add_common(parser)
    options = parser.parse_args(arguments)
    try:
        if TREES in options.variants and find_spec("sklearn") is None:
            raise CorpusError(
                "trees need scikit-learn: install defaultpp-monitor[train], or leave them out "
                "with --variants"
            )
        found = predictions.load(options.predictions)
        material = Material(learnt=options.table)
        settings = Settings(epochs=options.epochs, seed=options.seed)
        source = material.source
        of = {"corpus": source.checksum, "runs": len(source.runs)}
        if found.about.get("compared") != of:  # others cannot stand beside these
            found.answers = {
                k: a for k, a in found.answers.items() if k[0] not in COMPARED.values()
            }
        found.about["compared"] = of
        folds = plan(source.runs, options.folds, settings, options.variants)
        chosen = [fold for fold in folds if fold.view in options.views]
        for fold, answers in answers_of(material, chosen, options.workers):
            found.add(COMPARED[fold.view], fold.variant, fold.name, answers)
        predictions.save(found, options.predictions)
    except (CorpusError, PredictionsError) as error:
        print(error, file=sys.stderr)
        return 3
    print(evaluate.write(found, options))
    return 0


if __name__ == "__main__":
    sys.exit(main())
