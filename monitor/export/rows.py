"""What a trace holds, as rows of tables: read twice, so that one larger than memory can be."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from monitor.sources.source import SourceError
from monitor.usage import UsageError
from probe.schema import Frame, Header, Metric, Scalars
from probe.trace import TraceReader

FloatArray = npt.NDArray[np.float32]
STAMP = ("step", "rank", "time")
"""What every row begins with; ``time`` is Unix time in seconds."""


@dataclass(frozen=True)
class Row:
    """One sampled step of one rank, or one step of the scalars. NaN where nothing was measured."""

    step: int
    rank: int
    time: float
    values: FloatArray


@dataclass(frozen=True)
class Layout:
    """The columns of both tables: ``site/metric`` of every header there was, scalars by name."""

    trace: Path
    headers: tuple[Header, ...]
    columns: tuple[str, ...]
    scalars: tuple[str, ...]

    @property
    def definitions(self) -> dict[str, Metric]:
        """The metric behind each column that a header defines."""
        found = {}
        for header in self.headers:
            nodes = {site.name: site.node for site in header.anatomy.sites}
            for column in header.columns:
                metric = header.metric(column.metric, nodes.get(column.site, column.site))
                if metric is not None:
                    found[column.key] = metric
        return found

    def frames(self) -> Iterator[Row]:
        """A row for each frame, in the order in which they were recorded."""
        at = {key: place for place, key in enumerate(self.columns)}
        places: list[int] = []
        with TraceReader(self.trace) as reader:
            for record in reader:
                if isinstance(record, Header):
                    places = [at[column.key] for column in record.columns]
                elif isinstance(record, Frame) and len(record.array) == len(places):
                    values = np.full(len(self.columns), np.nan, np.float32)
                    values[places] = record.array
                    yield Row(record.step, record.rank, record.time, values)

    def steps(self) -> Iterator[Row]:
        """A row for each step that scalars were recorded of."""
        at = {name: place for place, name in enumerate(self.scalars)}
        with TraceReader(self.trace) as reader:
            for record in reader:
                if not isinstance(record, Scalars):
                    continue
                places = [at[name] for name in record.names]
                for step, time, found in zip(record.steps, record.times, record.array, strict=True):
                    values = np.full(len(self.scalars), np.nan, np.float32)
                    values[places] = found
                    yield Row(step, record.rank, time, values)


@dataclass(frozen=True)
class Written:
    """A table that was written: to a file of its own, or as ``table`` into one of several."""

    path: Path
    rows: int
    columns: int
    table: str = ""


def layout_of(trace: Path) -> Layout:
    """Read a trace for its columns. Raises TraceError or :class:`SourceError`."""
    headers: list[Header] = []
    columns: dict[str, None] = {}
    scalars: dict[str, None] = {}
    with TraceReader(trace) as reader:
        for record in reader:
            if isinstance(record, Header):
                headers.append(record)
                columns |= dict.fromkeys(column.key for column in record.columns)
            elif isinstance(record, Scalars):
                scalars |= dict.fromkeys(record.names)
    if not columns:
        raise SourceError(f"{trace}: the run ended before its model was seen: nothing to export")
    return Layout(trace, tuple(headers), tuple(columns), tuple(scalars))


def beside(output: Path) -> Path:
    """The file of the scalars: ``run.csv`` -> ``run.scalars.csv``."""
    return output.with_name(f"{output.stem}.scalars{output.suffix}")


def refuse_existing(paths: tuple[Path, ...], force: bool) -> None:
    """Raises :class:`UsageError` where a file would be overwritten without ``force``."""
    for path in paths:
        if path.exists() and not force:
            raise UsageError(f"{path} exists: name another file or add --force")
