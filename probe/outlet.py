"""What leaves the training thread: rows of scalars, frames and events, in the order they belong.

Everything is handed to the publishing thread as a draft. A row or frame waits until the step after
has begun, since a script logs a step's loss after the optimizer's step as often as before.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import msgspec

from probe.frames import FrameDraft, History, Layout
from probe.publisher import Publisher
from probe.scalars import Number, Row, number, pack
from probe.schema import Event, Header

FLUSH_SECONDS = 0.25


class Outlet:
    """Used by the training thread only. ``row`` is that of the step in progress."""

    def __init__(self, publisher: Publisher, rank: int, first_step: int = 0) -> None:
        self.row = Row(first_step, time.time())
        self._publisher = publisher
        self._rank = rank
        self._rows: list[Row] = []
        self._frame: FrameDraft | None = None
        self._flushed = time.monotonic()
        self._layout: Layout | None = None
        self._history = History()

    @property
    def opened(self) -> bool:
        """Whether the header was handed on."""
        return self._layout is not None

    def header(self, header: Header, full: Callable[[], Header]) -> None:
        """Begin the stream; ``full`` completes the header, in the publishing thread."""
        self._layout = Layout(header.columns)
        self._publisher.submit(lambda seq: msgspec.structs.replace(full(), seq=seq), soon=True)

    def event(self, kind: str, text: str, details: dict[str, str] | None = None) -> None:
        """Something that happened in the step in progress."""
        self._event_at(self.row.step, kind, text, details or {})

    def step_done(self, frame: FrameDraft | None) -> None:
        """The step is over; ``frame`` where it was sampled. Begins the next row."""
        if not self.row.began:  # no forward was seen, which else hands on what came before
            self._hand_on_frame()
            self.flush()
        if frame is not None:
            frame.skipped = self.row.skipped
        self._frame = frame
        self._rows.append(self.row)
        self.row = Row(self.row.step + 1, time.time())

    def settle(self) -> None:
        """The step before is past being logged to: hand on its frame, and its row when due."""
        if self.row.values and self._rows and not self.row.began:
            # Logged after the optimizer's step, before the next forward: it belongs to that step.
            self._rows[-1].values.update(self.row.values)
            self.row.values.clear()
        self._hand_on_frame()
        self.flush()

    def flush(self, force: bool = False) -> None:
        """Hand on the rows that are due, or all of them."""
        now = time.monotonic()
        due = force or now - self._flushed >= FLUSH_SECONDS
        # The newest row may still be logged to; it waits for the next forward unless forced.
        if self._layout is None or not self._rows or not due:
            return
        rows, self._rows, self._flushed = self._rows, [], now
        rank = self._rank
        self._publisher.submit(lambda seq: pack(rows, seq, rank))
        for row in rows:
            if row.skipped:
                self._event_at(row.step, "skipped_step", SKIPPED, {}, row.skipped)

    def _hand_on_frame(self) -> None:
        draft, self._frame = self._frame, None
        layout = self._layout
        if draft is None or layout is None:
            return
        loss = self._rows[-1].loss() if self._rows else None
        if loss is not None:
            draft.add("training", "loss", loss)
        rank, history = self._rank, self._history
        self._publisher.submit(lambda seq: draft.frame(seq, rank, layout, history))

    def _event_at(
        self,
        step: int,
        kind: str,
        text: str,
        details: dict[str, str],
        only_if: Sequence[Number] = (1.0,),
    ) -> None:
        now, rank = time.time(), self._rank

        def draft(seq: int) -> Event | None:
            if not any(number(flag) for flag in only_if):
                return None
            return Event(
                seq=seq, rank=rank, step=step, time=now, kind=kind, text=text, details=details
            )

        self._publisher.submit(draft)


SKIPPED = (
    "no optimizer step: the gradients were thrown away, as a gradient scaler does where they are "
    "not finite"
)
