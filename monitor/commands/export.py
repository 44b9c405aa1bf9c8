"""Write a saved run as tables, in the format that the file's ending names.

.csv and .parquet: one row per sampled step, one column per metric at a site; scalars (loss,
learning rate ...) go to a second file beside it, one row per step. What was not measured is an
empty cell, or NaN. .sqlite or .db: one file of long tables, with events and definitions;
SELECT * FROM samples joins them. Parquet needs pyarrow (the extra "parquet")."""

from __future__ import annotations

import argparse
from importlib import import_module
from pathlib import Path

HELP = "write a saved run as CSV, Parquet or SQLite"

FORMATS = {
    ".csv": "csv_tables",
    ".parquet": "parquet_tables",
    ".sqlite": "sqlite_tables",
    ".db": "sqlite_tables",
}
"""Module of ``monitor.export`` that writes files of each ending."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of ``export``."""
    parser.add_argument("trace", type=Path, metavar="TRACE", help="file written by the probe")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        required=True,
        metavar="FILE",
        help=f"file to write; it ends in {', '.join(FORMATS)}",
    )
    parser.add_argument("--force", action="store_true", help="overwrite files that exist")


def run(options: argparse.Namespace) -> int:
    """Write the tables and say how much was written."""
    from monitor.usage import UsageError

    output: Path = options.output
    module = FORMATS.get(output.suffix.lower())
    if module is None:
        raise UsageError(f"{output}: name a file that ends in {', '.join(FORMATS)}")
    write = import_module(f"monitor.export.{module}").write
    for written in write(options.trace, output, force=options.force):
        name = f"{written.path}: {written.table} " if written.table else f"{written.path}: "
        print(f"{name}{written.rows} rows, {written.columns} columns")
    return 0
