"""``python -m diagnoser.train --corpus DIR``: features, training, calibration, weights."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from diagnoser import manifest, schema, table, weights
from diagnoser.ablation import ABLATIONS
from diagnoser.dataset import load_samples
from diagnoser.extract import extract_all
from diagnoser.fitting import Settings, fit
from diagnoser.model import Shape

if TYPE_CHECKING:
    from diagnoser.dataset import Sample
    from diagnoser.extract import Extracted
    from diagnoser.manifest import Run

LoadSamples = Callable[[Sequence["Run"]], list["Sample"]]

DEFAULT_OUT = Path(__file__).parent / "weights" / weights.DEFAULT


def prepare(corpus: Path, workers: int) -> Extracted:
    """Read a corpus and bring its features up to date; says what was left out."""
    began = time.monotonic()
    found = extract_all(manifest.read(corpus), workers)
    for line in found.skipped[:20]:
        print(f"left out: {line}", file=sys.stderr)
    if len(found.skipped) > 20:
        folder = corpus / "features" / "skipped.txt"
        print(f"left out: {len(found.skipped) - 20} more, see {folder}", file=sys.stderr)
    check(corpus, found.runs)
    seconds = time.monotonic() - began
    print(f"{len(found.runs)} runs, features in {seconds:.0f} s", file=sys.stderr)
    return found


def check(corpus: Path, runs: Sequence[Run]) -> None:
    """Raises :class:`~diagnoser.manifest.CorpusError` where nothing could, or must, be learnt."""
    if not any(run.faulty for run in runs) or all(run.faulty for run in runs):
        raise manifest.CorpusError(
            f"{corpus} has no usable clean and faulty runs: both are needed, build it again"
        )


def read(corpus: Path, workers: int) -> tuple[tuple[Run, ...], str, LoadSamples]:
    """Runs, checksum of the corpus, and what loads runs' samples: from a corpus of traces or from
    a feature table."""
    if table.is_table(corpus):
        packed = table.read(corpus)
        check(corpus, packed.runs)
        return packed.runs, packed.checksum, packed.samples
    extracted = prepare(corpus, workers)
    return extracted.runs, extracted.manifest.checksum, partial(load_samples, extracted)


def load(corpus: Path, workers: int) -> tuple[tuple[Run, ...], str, LoadSamples]:
    """The same, to be learnt from: refuses the final hold-out."""
    found = read(corpus, workers)
    if any(run.final for run in found[0]):
        raise manifest.CorpusError(
            f"{corpus} is the final hold-out, which no weights may have seen: train on another"
        )
    return found


def choose(runs: Sequence[Run], families: Sequence[str], groups: Sequence[str]) -> list[Run]:
    """Runs that belong to none of the excluded families and groups."""
    return [run for run in runs if run.family not in families and run.group not in groups]


def main(arguments: Sequence[str] | None = None) -> int:
    """Train and save; exit status 0, or 3 where the corpus cannot be used."""
    parser = argparse.ArgumentParser(prog="python -m diagnoser.train", description=__doc__)
    parser.add_argument("--corpus", type=Path, required=True, help="a corpus, or its feature table")
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
        everything, checksum, samples_of_runs = load(options.corpus, options.workers)
        runs = choose(everything, options.exclude_family, options.exclude_groups)
        samples = samples_of_runs(runs)
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
        "corpus_checksum": checksum,
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
