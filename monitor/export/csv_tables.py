"""A trace as CSV: frames in one file, scalars in a second."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from monitor.export.rows import STAMP, Layout, Row, Written, beside, layout_of, refuse_existing
from monitor.sources.source import SourceError


def write(trace: Path, output: Path, *, force: bool = False) -> list[Written]:
    """Write ``output`` and, beside it, ``NAME.scalars.csv``; a table without columns is left out.

    What was not measured is an empty cell. Raises TraceError, SourceError or UsageError.
    """
    second = beside(output)
    refuse_existing((output, second), force)
    layout: Layout = layout_of(trace)
    tables = [_write(output, layout.columns, layout.frames())]
    if layout.scalars:
        tables.append(_write(second, layout.scalars, layout.steps()))
    return tables


def _write(path: Path, columns: tuple[str, ...], rows: Iterator[Row]) -> Written:
    count = 0
    try:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow([*STAMP, *columns])
            for row in rows:
                writer.writerow([row.step, row.rank, f"{row.time:.6f}", *_cells(row)])
                count += 1
    except OSError as error:
        raise SourceError(f"{path} cannot be written: {error.strerror}") from None
    return Written(path, count, len(STAMP) + len(columns))


def _cells(row: Row) -> list[str]:
    # Nine digits give a float32 back exactly.
    missing = np.isnan(row.values)
    return [
        "" if gone else f"{value:.9g}"
        for gone, value in zip(missing, row.values.tolist(), strict=True)
    ]
