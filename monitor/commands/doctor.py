"""Check what the monitor needs here: versions, terminal, directories, live runs.

With --model, say instead which parts of a model the probe finds (path per role, layers, heads,
order of norms, positions), how it is built (dropout, epsilon, windows, dtypes, initial weights),
and what the probe cannot measure on it and why. The factory takes no argument
and returns the model, or (model, batch) with a dict of the forward's arguments.

Exit status 0 where all is well or merely worth knowing, 1 where something would fail."""

from __future__ import annotations

import argparse

HELP = "check versions, terminal, directories and runs, or what is found in a model"


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of ``doctor``."""
    parser.add_argument(
        "--model", metavar="MODULE:FACTORY", help="say what the probe finds in this model"
    )


def run(options: argparse.Namespace) -> int:
    """Print one line per finding."""
    from monitor.checkup import findings
    from monitor.model_checkup import model_findings

    failed = False
    for finding in model_findings(options.model) if options.model else findings():
        print(f"{finding.mark} {finding.subject:<10} {finding.text}")
        failed = failed or finding.level == "fail"
    return 1 if failed else 0
