"""The diagnosis of a stream of records, without a screen: what ``diagnose`` and ``watch`` share."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from diagnoser.crashes import read as read_crash
from diagnoser.diagnosis import Diagnosis
from monitor.diagnosing import EngineFactory, EngineLike, load_engine, of_another_rank
from monitor.sources.source import SourceError
from probe.schema import Event, Frame, Header, Record


class StreamDiagnosis:
    """Feeds frames to the engine, in order. The header of another run starts a new engine, one of
    another rank of the same run is ignored."""

    def __init__(self, factory: EngineFactory | None = None) -> None:
        """``factory`` None: the product's engine, loaded with the first header (imports torch)."""
        self._factory = factory
        self._engine: EngineLike | None = None
        self.header: Header | None = None
        self.current: Diagnosis | None = None
        """State after the last frame; before any, "insufficient" with 0 frames."""

    def take(self, record: Record) -> Diagnosis | None:
        """The diagnosis after this record if it was a frame, else None."""
        if isinstance(record, Header):
            if not of_another_rank(record, self.header):
                self._begin(record)
        elif isinstance(record, Frame) and self._engine is not None:
            self.current = self._engine.update(record)
            return self.current
        elif isinstance(record, Event) and self.current is not None:
            # A training dies once: what is diagnosed afterwards would be another run's.
            crash = read_crash(record)
            if crash is not None:
                self.current = msgspec.structs.replace(self.current, crash=crash)
        return None

    def _begin(self, header: Header) -> None:
        known, self.header = self.header, header
        rebind = getattr(self._engine, "rebind", None)
        if rebind is not None and known is not None and known.run == header.run:
            rebind(header)  # a later revision of the same run keeps what was learned
            return
        if self._factory is None:
            self._factory = load_engine()
        self.current = nothing_seen(header.run)
        self._engine = self._factory(header)


def nothing_seen(run: str) -> Diagnosis:
    """The diagnosis before the first frame."""
    return Diagnosis(
        run=run, frames=0, last_step=-1, verdict="insufficient", probability=float("nan")
    )


def diagnose_records(
    records: Iterable[Record],
    factory: EngineFactory | None = None,
    progress: Callable[[Frame], None] | None = None,
) -> Diagnosis | None:
    """The engine's state at the end of the records; None where no header is among them."""
    stream = StreamDiagnosis(factory)
    for record in records:
        stream.take(record)
        if progress is not None and isinstance(record, Frame):
            progress(record)
    return stream.current


def diagnose_trace(path: Path, factory: EngineFactory | None = None) -> tuple[Diagnosis, int]:
    """The diagnosis of a saved run, and how many damaged places were left out. Raises TraceError
    or :class:`SourceError`."""
    from probe.trace import TraceReader

    with TraceReader(path) as reader:
        diagnosis = diagnose_records(reader, factory)
        damaged = reader.damaged
    if diagnosis is None:
        raise SourceError(f"{path}: the run ended before its model was seen: nothing to diagnose")
    return diagnosis, damaged
