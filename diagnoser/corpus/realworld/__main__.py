"""Run every case, buggy and fixed, and tell what the shipped diagnosis says of each."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
import transformers

from diagnoser import weights
from diagnoser.corpus.realworld.case import Case
from diagnoser.corpus.realworld.catalogue import CASES
from diagnoser.corpus.realworld.outcome import Outcome
from diagnoser.corpus.realworld.recording import diagnose, record
from diagnoser.corpus.realworld.table import descriptions, results, write


def examine(case: Case, folder: Path, trained: weights.Trained | None = None) -> Outcome:
    """Record both versions in ``folder`` and diagnose them."""
    answers = []
    for fixed in (False, True):
        trace = folder / f"{case.name.replace('#', '-')}-{'fixed' if fixed else 'buggy'}.trace"
        trace.unlink(missing_ok=True)
        record(case, fixed, trace)
        answers.append(diagnose(trace, trained))
    return Outcome(case, *answers)


def _quiet() -> None:
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    warnings.filterwarnings("ignore")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m diagnoser.corpus.realworld", description=__doc__
    )
    parser.add_argument("--write", action="store_true", help="put the tables in the README")
    parser.add_argument("--only", nargs="+", metavar="ISSUE", help="those whose name holds this")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep the traces here")
    options = parser.parse_args(arguments)
    cases = [c for c in CASES if not options.only or any(part in c.issue for part in options.only)]
    if not cases:
        print(f"no case is called {' or '.join(options.only)}", file=sys.stderr)
        return 64
    if options.write and options.only:
        print("--write takes all cases: leave --only out", file=sys.stderr)
        return 64
    _quiet()
    trained = weights.load(None)
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        outcomes = []
        for case in cases:
            begun = time.monotonic()
            outcomes.append(examine(case, folder, trained))
            print(f"{case.issue}: {time.monotonic() - begun:.1f} s", file=sys.stderr)
    print(results(outcomes))
    if options.write:
        write(f"{results(outcomes)}\n\n{descriptions(CASES)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
