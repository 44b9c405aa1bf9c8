"""``python -m diagnoser.train --corpus DIR``: features, training, calibration, weights."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from diagnoser import manifest, schema, sources, weights
from diagnoser.ablation import ABLATIONS
from diagnoser.fitting import Settings, fit
from diagnoser.model import Shape

if TYPE_CHECKING:
    from collections.abc import Sequence

    from diagnoser.manifest import Run

DEFAULT_OUT = Path(__file__).parent / "weights" / weights.DEFAULT


def choose(runs: Sequence[Run], families: Sequence[str], groups: Sequence[str]) -> list[Run]:
    """Runs that belong to none of the excluded families and groups."""
    return [run for run in runs if run.family not in families and run.group not in groups]


def main(arguments: Sequence[str] | None = None) -> int:
    """Train and save; exit status 0, or 3 where the corpus cannot be used."""
    parser = argparse.ArgumentParser(prog="python -m diagnoser.train", description=__doc__)
    parser.add_argument(
        "--corpus",
        type=Path,
        nargs="+",
        required=True,
        metavar="DIR",
        help="a corpus, or its feature table; several count as one",
    )
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT, help="weights to write")
    parser.add_argument("--exclude-family", nargs="*", default=[], metavar="FAMILY")
    parser.add_argument("--exclude-groups", nargs="*", default=[], metavar="GROUP")
    parser.add_argument(
        "--without", nargs="*", default=[], choices=list(ABLATIONS), help="ablations"
    )
    parser.add_argument("--epochs", type=int, default=Settings.epochs)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2, help="processes for the features")
    options = parser.parse_args(arguments)
    torch.set_num_threads(min(2, torch.get_num_threads()))
    try:
        source = sources.load(options.corpus, options.workers)
        runs = choose(source.runs, options.exclude_family, options.exclude_groups)
        samples = source.samples(runs)
        if not samples:
            raise manifest.CorpusError("nothing is left to train on: exclude fewer groups")
    except manifest.CorpusError as error:
        print(error, file=sys.stderr)
        return 3
    began = time.monotonic()
    settings = Settings(
        epochs=options.epochs,
        seed=options.seed,
        shape=Shape(without=tuple(options.without)),
    )
    trained = fit(samples, settings, lambda text: print(text, file=sys.stderr))
    trained.about = {
        "corpus_checksum": source.checksum,
        "features": schema.digest(),
        "runs": len(runs),
        "clean_runs": sum(not run.faulty for run in runs),
        "samples": len(samples),
        "excluded": [*options.exclude_family, *options.exclude_groups],
        "seed": options.seed,
        "epochs": options.epochs,
    }
    weights.save(trained, options.out)
    seconds = time.monotonic() - began
    print(f"trained on {len(samples)} samples in {seconds:.0f} s: {options.out}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
