"""Write a saved run as a table: one row per sampled step, one column per metric at a site.

Scalars (loss, learning rate ...) are written to a second file beside it, one row per step. What was
not measured is an empty cell."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "write a saved run as CSV"


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of ``export``."""
    parser.add_argument("trace", type=Path, metavar="TRACE", help="file written by the probe")
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="X.csv", help="file to write"
    )
    parser.add_argument("--force", action="store_true", help="overwrite files that exist")


def run(options: argparse.Namespace) -> int:
    """Write both tables and say how much was written."""
    from monitor.tables import write_tables
    from monitor.usage import UsageError

    output: Path = options.output
    if output.suffix.lower() != ".csv":
        raise UsageError(f"{output}: only CSV is written so far: name a file that ends in .csv")
    for written in write_tables(options.trace, output, force=options.force):
        print(f"{written.path}: {written.rows} rows, {written.columns} columns")
    return 0
