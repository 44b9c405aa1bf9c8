"""What every source of a run offers to the monitor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Protocol

from msgspec import Struct

from probe.schema import Control, Header, Record

Link = Literal["connecting", "live", "silent", "lost", "ended", "replay"]
"""``silent``: connected, but nothing came for a while. ``lost``: the run's process is gone or the
connection broke; what was read stays. ``ended``: the stream closed in order."""


class SourceError(Exception):
    """A run or trace that cannot be read. The message says what to do; it is shown as it is."""


class Batch(Struct, frozen=True):
    """What one read brought. ``records`` are in stream order, each exactly once."""

    records: tuple[Record, ...] = ()
    link: Link = "connecting"
    state: str = ""
    """The training's own state as last heard: ``waiting training paused closed off``."""
    text: str = ""
    """A sentence for the person when the link changed (why it was lost, what is tried next)."""
    overhead: float = float("nan")
    """Probe time over training time, as last heard."""
    overview: Mapping[str, Any] | None = None
    """All that a model held after reading a trace (:mod:`monitor.model_state`), in place of what
    was read until now; the diagnosis is told of its records later, as known ones."""
    known: bool = False
    """The model holds these records already: they are for the diagnosis alone."""
    ignored: int = 0
    """Unreadable messages received so far and ignored."""

    @property
    def size(self) -> int:
        """How many records it brings."""
        return len(self.records)

    @property
    def headers(self) -> list[Header]:
        """Those among the records."""
        # A look at the types first: of most batches' many records none is a header.
        if Header not in map(type, self.records):
            return []
        return [record for record in self.records if isinstance(record, Header)]


class Position(Struct, frozen=True):
    """Where a replay stands. ``speed`` 1.0 is as fast as the run was recorded."""

    record: int
    records: int
    step: int
    last_step: int
    playing: bool
    speed: float
    seeking: bool = False
    """On the way to where it was sent, as fast as it can be read."""

    @property
    def at_end(self) -> bool:
        """Every frame there is so far was shown."""
        return self.record > 0 and self.step >= self.last_step


class Source(Protocol):
    """Read from one thread; ``send`` and ``close`` may come from another."""

    title: str
    """Short text for the header, e.g. ``bert-7 (ipc)`` or ``ssh://gpu/bert-7``."""

    def read(self, limit: int = 500, timeout: float = 0.25) -> Batch:
        """Up to ``limit`` records, waiting at most ``timeout`` seconds. Never raises once open."""
        ...

    def send(self, control: Control) -> str:
        """Carry a control request to the run; returns the sentence to show. Never raises."""
        ...

    def close(self) -> None:
        """Let go of sockets, processes and files. May be called twice."""
        ...


class Replayable(Source, Protocol):
    """A source with a position: a saved trace."""

    def position(self) -> Position: ...

    def play(self, playing: bool) -> None: ...

    def set_speed(self, speed: float) -> None: ...

    def jump(self, step: int) -> None:
        """Go to the first frame at or after ``step``. Going back restarts the stream: the next
        batch begins with the header again, and the reader clears what it holds."""
        ...

    def step(self, frames: int) -> None:
        """Move by a number of frames, either way, while paused."""
        ...


__all__ = ["Batch", "Link", "Position", "Replayable", "Source", "SourceError"]
