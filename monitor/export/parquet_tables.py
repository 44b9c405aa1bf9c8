"""A trace as Parquet: frames in one file, scalars in a second. Needs pyarrow, an optional extra."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from monitor.export.rows import STAMP, Row, Written, beside, layout_of, refuse_existing
from monitor.sources.source import SourceError
from monitor.usage import UsageError

GROUP_ROWS = 2000
"""Rows held in memory and written as one row group."""


def write(trace: Path, output: Path, *, force: bool = False) -> list[Written]:
    """Write ``output`` and, beside it, ``NAME.scalars.parquet``.

    Values are float32, NaN where not measured. Raises TraceError, SourceError or UsageError, the
    latter also where pyarrow is missing.
    """
    arrow = _pyarrow()
    second = beside(output)
    refuse_existing((output, second), force)
    layout = layout_of(trace)
    notes = {
        key: {"unit": metric.unit, "meaning": metric.meaning, "healthy": metric.healthy}
        for key, metric in layout.definitions.items()
    }
    tables = [_write(arrow, output, layout.columns, layout.frames(), notes)]
    if layout.scalars:
        tables.append(_write(arrow, second, layout.scalars, layout.steps(), {}))
    return tables


def _pyarrow() -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise UsageError(
            "Parquet needs pyarrow: pip install 'defaultpp-monitor[parquet]', or name a file that "
            "ends in .csv or .sqlite"
        ) from None
    return pyarrow


def _write(
    arrow: Any,
    path: Path,
    columns: tuple[str, ...],
    rows: Iterator[Row],
    notes: dict[str, dict[str, str]],
) -> Written:
    fields = [
        arrow.field("step", arrow.int64()),
        arrow.field("rank", arrow.int32()),
        arrow.field("time", arrow.float64()),
        *(arrow.field(name, arrow.float32(), metadata=notes.get(name)) for name in columns),
    ]
    schema = arrow.schema(fields)
    count = 0
    try:
        with arrow.parquet.ParquetWriter(path, schema, compression="zstd") as writer:
            while held := list(islice(rows, GROUP_ROWS)):
                values = np.stack([row.values for row in held])
                arrays = [
                    arrow.array([row.step for row in held], arrow.int64()),
                    arrow.array([row.rank for row in held], arrow.int32()),
                    arrow.array([row.time for row in held], arrow.float64()),
                    *(arrow.array(values[:, place]) for place in range(len(columns))),
                ]
                writer.write_table(arrow.table(arrays, schema=schema))
                count += len(held)
    except OSError as error:
        raise SourceError(f"{path} cannot be written: {error.strerror or error}") from None
    return Written(path, count, len(STAMP) + len(columns))
