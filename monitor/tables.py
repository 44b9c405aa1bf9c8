"""A trace as CSV tables: frames in one, scalars in another."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from monitor.sources.source import SourceError
from monitor.usage import UsageError
from probe.schema import Frame, Header, Scalars
from probe.trace import TraceReader


@dataclass(frozen=True)
class Written:
    """A table that was written."""

    path: Path
    rows: int
    columns: int


def write_tables(trace: Path, output: Path, *, force: bool = False) -> list[Written]:
    """Write ``output`` and, beside it, ``NAME.scalars.csv``; empty tables are left out.

    A later header (the model changed) adds its columns; every header's are in the first line.
    Raises TraceError, :class:`SourceError` or :class:`UsageError`.
    """
    beside = output.with_name(f"{output.stem}.scalars.csv")
    for path in (output, beside):
        if path.exists() and not force:
            raise UsageError(f"{path} exists: name another file or add --force")
    # Two passes, so that a trace larger than memory can be written.
    keys: dict[str, int] = {}
    names: dict[str, int] = {}
    with TraceReader(trace) as reader:
        for record in reader:
            if isinstance(record, Header):
                for column in record.columns:
                    keys.setdefault(column.key, len(keys))
            elif isinstance(record, Scalars):
                for name in record.names:
                    names.setdefault(name, len(names))
    if not keys:
        raise SourceError(f"{trace}: the run ended before its model was seen: nothing to export")
    tables = [_write(output, ["step", "rank", "time", *keys], _frame_rows(trace, keys))]
    if names:
        tables.append(_write(beside, ["step", "rank", "time", *names], _scalar_rows(trace, names)))
    return tables


def _write(path: Path, head: list[str], rows: Iterator[list[str]]) -> Written:
    count = 0
    try:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(head)
            for row in rows:
                writer.writerow(row)
                count += 1
    except OSError as error:
        raise SourceError(f"{path} cannot be written: {error.strerror}") from None
    return Written(path, count, len(head))


def _frame_rows(trace: Path, keys: dict[str, int]) -> Iterator[list[str]]:
    places: list[int] = []
    with TraceReader(trace) as reader:
        for record in reader:
            if isinstance(record, Header):
                places = [keys[column.key] for column in record.columns]
            elif isinstance(record, Frame):
                yield [
                    *_stamp(record.step, record.rank, record.time),
                    *_spread(places, record.array.tolist(), len(keys)),
                ]


def _scalar_rows(trace: Path, names: dict[str, int]) -> Iterator[list[str]]:
    with TraceReader(trace) as reader:
        for record in reader:
            if not isinstance(record, Scalars):
                continue
            places = [names[name] for name in record.names]
            for step, time, values in zip(record.steps, record.times, record.array, strict=True):
                yield [
                    *_stamp(step, record.rank, time),
                    *_spread(places, values.tolist(), len(names)),
                ]


def _stamp(step: int, rank: int, time: float) -> list[str]:
    return [str(step), str(rank), f"{time:.6f}"]


def _spread(places: list[int], values: list[float], width: int) -> list[str]:
    cells = [""] * width
    for place, value in zip(places, values, strict=False):
        # Nine digits give a float32 back exactly.
        cells[place] = "" if math.isnan(value) else f"{value:.9g}"
    return cells


__all__ = ["Written", "write_tables"]
