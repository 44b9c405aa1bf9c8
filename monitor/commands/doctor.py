"""Check what the monitor needs here: versions, terminal, directories, live runs.

Exit status 0 where all is well or merely worth knowing, 1 where something would fail."""

from __future__ import annotations

import argparse

HELP = "check versions, terminal, directories and runs"


def configure(parser: argparse.ArgumentParser) -> None:
    """``doctor`` has no options."""


def run(options: argparse.Namespace) -> int:
    """Print one line per finding."""
    from monitor.checkup import findings

    failed = False
    for finding in findings():
        print(f"{finding.mark} {finding.subject:<10} {finding.text}")
        failed = failed or finding.level == "fail"
    return 1 if failed else 0
