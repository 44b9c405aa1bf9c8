"""A whole trace read and diagnosed: everything a report is written from."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from diagnoser.diagnosis import Diagnosis
from monitor.diagnosing import EngineFactory
from monitor.run_model import RunModel
from monitor.sources.source import Batch, SourceError
from monitor.stream_diagnosis import StreamDiagnosis
from monitor.usage import UsageError
from monitor.verdict_history import VerdictHistory
from monitor.viewing import Viewing
from probe.schema import Header
from probe.trace import TraceReader

CHARTS = 12
"""Charts of a report that was not asked for more."""
_AT_ONCE = 1000


@dataclass(frozen=True)
class Gathered:
    """A run at its end. ``charts`` are the keys to draw, the evidence's first."""

    path: Path
    header: Header
    model: RunModel
    verdicts: VerdictHistory
    diagnosis: Diagnosis
    charts: tuple[str, ...]


def gather(path: Path, pattern: str = "", factory: EngineFactory | None = None) -> Gathered:
    """Read and diagnose a trace.

    ``pattern``: a regular expression; charts whose name it matches are drawn too. Raises
    TraceError, :class:`SourceError` or :class:`UsageError`.
    """
    try:
        matcher = re.compile(pattern, re.IGNORECASE) if pattern else None
    except re.error as error:
        raise UsageError(f"--charts {pattern}: not a regular expression: {error}") from None
    model, verdicts, stream = RunModel(), VerdictHistory(), StreamDiagnosis(factory)
    with TraceReader(path) as reader:
        while records := reader.records(_AT_ONCE):
            model.take(Batch(records=tuple(records), link="replay"))
            for record in records:
                if isinstance(record, Header) and record.revision == 0:
                    verdicts.clear()
                found = stream.take(record)
                if found is not None:
                    verdicts.add(found)
    if model.header is None or stream.current is None:
        raise SourceError(f"{path}: the run ended before its model was seen: nothing to report")
    return Gathered(
        path=path,
        header=model.header,
        model=model,
        verdicts=verdicts,
        diagnosis=stream.current,
        charts=_charts(model, stream.current, matcher),
    )


def _charts(
    model: RunModel, diagnosis: Diagnosis, matcher: re.Pattern[str] | None
) -> tuple[str, ...]:
    viewing = Viewing()
    viewing.promote(diagnosis)
    measured = [key for key in viewing.keys(model) if model.measured(key)]
    first = measured[:CHARTS]
    wanted = [key for key in measured[CHARTS:] if matcher is not None and matcher.search(key)]
    return (*first, *wanted)
