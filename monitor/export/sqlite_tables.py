"""A trace as one SQLite file, in long tables: a row for each value that was measured.

A column for each metric at each site would pass SQLite's limit of 2000 columns on deep models.
"""

from __future__ import annotations

import contextlib
import math
import os
import sqlite3
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from monitor.export.rows import Layout, Row, Written, layout_of, refuse_existing
from monitor.sources.source import SourceError
from probe.schema import Event
from probe.trace import TraceReader

_TABLES = """
CREATE TABLE run (name TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID;
CREATE TABLE metrics (id INTEGER PRIMARY KEY, site TEXT, metric TEXT, unit TEXT, meaning TEXT,
    healthy TEXT, contract INTEGER, UNIQUE (site, metric));
CREATE TABLE frames (id INTEGER PRIMARY KEY, step INTEGER, rank INTEGER, time REAL);
CREATE TABLE measured (metric INTEGER REFERENCES metrics, frame INTEGER REFERENCES frames,
    value REAL, PRIMARY KEY (metric, frame)) WITHOUT ROWID;
CREATE TABLE scalars (step INTEGER, rank INTEGER, time REAL, name TEXT, value REAL);
CREATE TABLE events (step INTEGER, rank INTEGER, time REAL, kind TEXT, text TEXT);
CREATE VIEW samples AS SELECT step, rank, time, site, metrics.metric AS metric, value
    FROM measured JOIN frames ON frames.id = measured.frame
    JOIN metrics ON metrics.id = measured.metric;
"""


def write(trace: Path, output: Path, *, force: bool = False) -> list[Written]:
    """Write ``output``: the tables above; ``SELECT * FROM samples`` joins them.

    NaN is left out, infinity is kept. Raises TraceError, SourceError or UsageError.
    """
    refuse_existing((output,), force)
    layout = layout_of(trace)
    part = output.with_name(f".{output.name}.{os.getpid()}")
    try:
        with contextlib.closing(sqlite3.connect(part)) as file:
            # A new file that is put into place when it is whole needs no journal of its own.
            file.execute("PRAGMA journal_mode = OFF")
            file.execute("PRAGMA synchronous = OFF")
            file.executescript(_TABLES)
            tables = _fill(file, layout, output)
            file.commit()
        part.replace(output)
    except (sqlite3.Error, OSError) as error:
        raise SourceError(f"{output} cannot be written: {error}") from None
    finally:
        part.unlink(missing_ok=True)
    return tables


def _fill(file: sqlite3.Connection, layout: Layout, output: Path) -> list[Written]:
    file.executemany("INSERT INTO run VALUES (?, ?)", _facts(layout))
    file.executemany("INSERT INTO metrics VALUES (?, ?, ?, ?, ?, ?, ?)", _definitions(layout))
    frames = measured = steps = events = 0
    for frames, row in enumerate(layout.frames(), 1):
        file.execute("INSERT INTO frames VALUES (?, ?, ?, ?)", (frames, *_stamp(row)))
        known = np.flatnonzero(~np.isnan(row.values))
        values = row.values[known].tolist()
        pairs = zip(known.tolist(), values, strict=True)
        file.executemany(
            "INSERT INTO measured VALUES (?, ?, ?)",
            ((metric, frames, value) for metric, value in pairs),
        )
        measured += len(known)
    for row in layout.steps():
        for name, value in zip(layout.scalars, row.values.tolist(), strict=True):
            if not math.isnan(value):
                file.execute(
                    "INSERT INTO scalars VALUES (?, ?, ?, ?, ?)", (*_stamp(row), name, value)
                )
                steps += 1
    with TraceReader(layout.trace) as reader:
        for record in reader:
            if isinstance(record, Event):
                found = (record.step, record.rank, record.time, record.kind, record.text)
                file.execute("INSERT INTO events VALUES (?, ?, ?, ?, ?)", found)
                events += 1
    return [
        Written(output, frames, 4, "frames"),
        Written(output, measured, 3, "measured"),
        Written(output, steps, 5, "scalars"),
        Written(output, events, 5, "events"),
    ]


def _stamp(row: Row) -> tuple[int, int, float]:
    return row.step, row.rank, row.time


def _facts(layout: Layout) -> Iterable[tuple[str, str]]:
    header = layout.headers[-1]
    anatomy = header.anatomy
    yield from (("run", header.run), ("name", header.name), ("host", header.host))
    yield from (("model", anatomy.model), ("kind", anatomy.kind), ("layers", str(anatomy.layers)))
    yield from ((f"setting {name}", value) for name, value in header.settings.items())
    yield from ((f"version {name}", value) for name, value in header.versions.items())


def _definitions(layout: Layout) -> Iterable[tuple[int, str, str, str, str, str, int]]:
    found = layout.definitions
    for number, key in enumerate(layout.columns):
        site, _, name = key.rpartition("/")
        metric = found.get(key)
        if metric is None:
            yield number, site, name, "", "", "", 0
        else:
            yield (number, site, name, metric.unit, metric.meaning, metric.healthy,
                   int(metric.contract))  # fmt: skip
