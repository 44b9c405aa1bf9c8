"""What the monitor knows about a run: histories, events, state. Pure: numpy, no thread, no screen.

A source's batches go in through :meth:`RunModel.take`; the widgets read. Memory is bounded
whatever the run's length.
"""

from __future__ import annotations

import math
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain

import numpy as np
import numpy.typing as npt
from msgspec import Struct
from msgspec.structs import replace

from monitor.envelope import Curve, Envelope
from monitor.merging import together
from monitor.metric_groups import Member, MetricGroup, groups_of, whole_key
from monitor.snapshot import Snapshot
from monitor.sources.source import Batch, Link
from monitor.step_clock import StepClock
from probe.schema import End, Event, Frame, FrameView, Header, Record, RecordView, Scalars

FRAME_MEMORY = 48 * 1024 * 1024
"""Bytes the histories of all frame columns may take."""
_BYTES_PER_VALUE = 13
SCALAR_BUCKETS = 2048
MAX_EVENTS = 2000
MAX_SCALARS = 256
MAX_RANKS = 16
"""Ranks whose values are kept; those of further ones are left out."""
_RATE_WINDOW = 64


class StepMark(Struct, frozen=True):
    """A vertical mark on every chart. ``kind`` is an event's kind, or ``flagged``."""

    step: int
    kind: str


class RunModel:
    """The run as read so far.

    Ranks are kept apart; the header's own is meant where none is named.

    ``version`` changes whenever anything a screen shows did; ``contents`` only with the data
    themselves, not with what is heard of the run's state every second.
    """

    def __init__(self) -> None:
        self.version = 0
        self.contents = 0
        self.link: Link = "connecting"
        self.state = ""
        self.text = ""
        self.overhead = float("nan")
        self._unreadable = 0
        self._misfits = 0
        self.header: Header | None = None
        self._clear()

    def _clear(self) -> None:
        self.step: int | None = None
        self.first_step: int | None = None
        self.frames = 0
        self.end: End | None = None
        self.events: deque[Event] = deque(maxlen=MAX_EVENTS)
        self.clock = StepClock()
        self._histories: dict[int, Envelope] = {}
        self._measured = np.zeros(0, bool)
        self._scalars: dict[str, dict[int, Envelope]] = {}
        self._pace: deque[tuple[int, float]] = deque(maxlen=_RATE_WINDOW)
        self._groups: dict[str, MetricGroup] | None = None
        self._known_keys: tuple[dict[str, MetricGroup], int, frozenset[str]] | None = None
        self._snapshot = Snapshot(-1, (0, None))
        self._held = False

    def take(self, batch: Batch) -> None:
        """Take in what one read brought."""
        status = (batch.link, batch.state, batch.text, batch.overhead, batch.ignored)
        known = (self.link, self.state, self.text, self.overhead, self._unreadable)
        if batch.records or repr(status) != repr(known):
            self.version += 1
        if batch.records:
            self.contents += 1
        self.link, self._unreadable = batch.link, batch.ignored
        self.state = batch.state or self.state
        if batch.text or batch.link in ("live", "replay", "connecting"):
            self.text = batch.text
        if not math.isnan(batch.overhead):
            self.overhead = batch.overhead
        self._take_records(batch.records)

    def read(self, records: Sequence[Record | RecordView]) -> None:
        """Take in records alone; of views, which live no longer than what they were read from,
        nothing is kept."""
        self.version += 1
        self.contents += 1
        self._take_records(records)

    @property
    def over(self) -> bool:
        """The run ended, or nothing more is heard of it."""
        return self.end is not None or self.link in ("ended", "lost")

    @property
    def ignored(self) -> int:
        """Messages that could not be read, and frames that do not fit their header."""
        return self._unreadable + self._misfits

    def note(self, text: str, kind: str = "monitor", step: int | None = None) -> None:
        """Put a sentence of the monitor's own into the event log, at ``step`` or the newest."""
        self.version += 1
        self.contents += 1
        step = self.step if step is None else step
        self.events.append(
            Event(seq=-1, step=-1 if step is None else step, time=0.0, kind=kind, text=text)
        )

    def _take_records(self, records: Sequence[Record | RecordView]) -> None:
        """Frames and scalars are put together until a header comes: many at once cost little."""
        frames: defaultdict[int, list[Frame | FrameView]] = defaultdict(list)
        scalars: defaultdict[tuple[int, tuple[str, ...]], list[Scalars]] = defaultdict(list)

        def together_so_far() -> None:
            for rank, found in frames.items():
                self._take_frames(rank, found)
            for (rank, names), parts in scalars.items():
                self._take_scalars(rank, names, parts)
            frames.clear()
            scalars.clear()

        for record in records:
            kind = type(record)  # no record has subclasses, and this is faster
            if kind is FrameView or kind is Frame:
                frames[record.rank].append(record)  # type: ignore[arg-type]
            elif isinstance(record, Scalars):
                if record.steps:
                    scalars[record.rank, record.names].append(record)
            elif isinstance(record, Event):
                self.events.append(record)
                self._see(record.step)
            elif isinstance(record, Header):
                together_so_far()
                self._take_header(record)
            elif isinstance(record, End):
                self.end = record
        together_so_far()

    def _take_header(self, header: Header) -> None:
        held = self.header
        if held is not None and held.run == header.run and held.rank != header.rank:
            return  # another rank of this run tells of the same model
        columns = len(header.columns)
        self.header = header
        self._groups = None
        if held is not None and held.run == header.run and header.revision > held.revision:
            places = {column: index for index, column in enumerate(held.columns)}
            sources = [places.get(column) for column in header.columns]
            self._histories = {
                rank: history.rearranged(sources) for rank, history in self._histories.items()
            }
            self._measured = np.array([s is not None and self._measured[s] for s in sources], bool)
            return
        self._clear()
        self._measured = np.zeros(columns, bool)

    @property
    def home(self) -> int:
        """The rank that is meant where none is named: the header's, or the first heard of."""
        rank = self.header.rank if self.header is not None else 0
        return rank if rank in self._histories or not self._histories else min(self._histories)

    @property
    def ranks(self) -> tuple[int, ...]:
        """The ranks heard of."""
        scalars = {rank for found in self._scalars.values() for rank in found}
        return tuple(sorted(scalars | set(self._histories)))

    @property
    def _history(self) -> Envelope:
        columns = len(self.header.columns) if self.header is not None else 0
        return self._histories.get(self.home) or Envelope(columns, 2)

    def _history_of(self, rank: int) -> Envelope | None:
        held = self._histories.get(rank)
        if held is None and len(self._histories) < MAX_RANKS and self.header is not None:
            columns = len(self.header.columns)
            shared = min(max(self.header.world_size, 1), MAX_RANKS)
            buckets = FRAME_MEMORY // (_BYTES_PER_VALUE * max(columns, 1) * shared)
            held = Envelope(columns, min(1024, max(64, buckets // 2 * 2)))
            self._histories[rank] = held
        return held

    def _take_frames(self, rank: int, frames: Sequence[Frame | FrameView]) -> None:
        columns = -1 if self.header is None else len(self.header.columns)
        fitting = [frame for frame in frames if len(frame.values) == 4 * columns]
        self._misfits += len(frames) - len(fitting)
        history = self._history_of(rank) if fitting else None
        if history is None:
            return
        steps = np.array([frame.step for frame in fitting], np.int64)
        values = np.frombuffer(b"".join(frame.values for frame in fitting), "<f4")
        values = values.reshape(len(fitting), columns)
        # A step that comes twice in a row is one sample of what was measured at it.
        last = history.last_step
        again = np.flatnonzero(np.diff(steps, prepend=steps[0] - 1 if last is None else last) == 0)
        at = 0
        for place in (*again.tolist(), len(steps)):
            if place > at:
                history.extend(steps[at:place], values[at:place])
            if place < len(steps):
                history.merge_into_last(values[place])
            at = place + 1
        if rank == self.home:
            self.frames += len(steps) - len(again)
        unseen = np.flatnonzero(~self._measured)
        self._measured[unseen] = ~np.isnan(values[:, unseen]).all(axis=0)
        self._see(int(steps.min()))
        self._see(int(steps.max()))
        for frame in (fitting[0], *fitting[-_RATE_WINDOW:]):
            self._time(frame.step, frame.time)

    def _take_scalars(self, rank: int, names: tuple[str, ...], parts: Sequence[Scalars]) -> None:
        steps = np.fromiter(chain.from_iterable(part.steps for part in parts), np.int64)
        values = np.frombuffer(b"".join([part.values for part in parts]), "<f4")
        values = values.reshape(len(steps), len(names))
        for index, name in enumerate(names):
            if name not in self._scalars:
                if len(self._scalars) >= MAX_SCALARS:
                    continue
                self._scalars[name] = {}
                self._groups = None
            ranks = self._scalars[name]
            if rank not in ranks:
                if len(ranks) >= MAX_RANKS:
                    continue
                ranks[rank] = Envelope(1, SCALAR_BUCKETS)
            ranks[rank].extend(steps, values[:, index : index + 1])
        self._see(int(steps.min()))
        self._see(int(steps.max()))
        for part in (parts[0], *parts[-_RATE_WINDOW:]):
            self._time(part.steps[0], part.times[0])
            self._time(part.steps[-1], part.times[-1])

    def _see(self, step: int) -> None:
        self.step = step if self.step is None else max(self.step, step)
        self.first_step = step if self.first_step is None else min(self.first_step, step)

    def _time(self, step: int, time: float) -> None:
        if not self._pace or step > self._pace[-1][0]:
            self._pace.append((step, time))
        self.clock.add(step, time)

    @property
    def steps_per_second(self) -> float:
        """Over the latest records, by the run's own clock; NaN before two of them."""
        if len(self._pace) < 2:
            return float("nan")
        (step, time), (last_step, last_time) = self._pace[0], self._pace[-1]
        return (last_step - step) / (last_time - time) if last_time > time else float("nan")

    @property
    def groups(self) -> dict[str, MetricGroup]:
        """All charts of the run by key."""
        if self._groups is None:
            self._groups = groups_of(self.header, tuple(self._scalars))
        return self._groups

    def curve(self, member: Member, upto: int | None = None, rank: int | None = None) -> Curve:
        """History of one member of a group on one rank; an empty one where it has none."""
        if member.scalar:
            found = self._scalar(member.scalar, rank)
            return (found or Envelope(1, 2)).curve(0, member.label, upto)
        history = self._history if rank is None else self._histories.get(rank)
        if history is None:
            return Envelope(1, 2).curve(0, member.label, upto)
        return history.curve(member.column, member.label, upto)

    def _scalar(self, name: str, rank: int | None = None) -> Envelope | None:
        ranks = self._scalars[name]
        if rank is None:
            rank = self.home if self.home in ranks else min(ranks, default=0)
        return ranks.get(rank)

    def curves(
        self, key: str, upto: int | None = None, rank: int | None = None
    ) -> tuple[Curve, ...]:
        """All curves of a chart; empty where the run has no such chart.

        ``rank`` None where there are several: all together. A chart of one curve has one for each
        rank then, labelled ``r0``, ``r1``; in others each curve spans what the ranks measured.
        Asked again, they are the same objects until more is read, or until :meth:`hold` where
        that was called.
        """
        self._keep_up()
        return self._snapshot.curves((key, upto, rank), lambda: self._made_curves(key, upto, rank))

    @property
    def reach(self) -> tuple[int, int | None]:
        """First and last step that the curves go over; no last one before the first record."""
        self._keep_up()
        return self._snapshot.reach

    def snapshot(self) -> Snapshot:
        """What a picture of all that was read would be of."""
        return Snapshot(self.contents, (self.first_step or 0, self.step))

    def hold(self, snapshot: Snapshot | None = None) -> None:
        """Curves are those of a snapshot, or as they are now, until this is called again: what is
        drawn between two pictures of new data, for a key, is of the same data as the picture."""
        if snapshot is not None:
            self._snapshot = snapshot
        elif self.behind:
            self._snapshot = self.snapshot()
        self._held = True

    @contextmanager
    def ahead(self, snapshot: Snapshot) -> Iterator[None]:
        """Meanwhile curves are those of a snapshot that is to be held later."""
        before = self._snapshot, self._held
        self._snapshot, self._held = snapshot, True
        try:
            yield
        finally:
            self._snapshot, self._held = before

    @property
    def behind(self) -> bool:
        """More was read than the curves show."""
        return self._snapshot.contents != self.contents

    def _keep_up(self) -> None:
        if self.behind and not self._held:
            self._snapshot = self.snapshot()

    def _made_curves(self, key: str, upto: int | None, rank: int | None) -> tuple[Curve, ...]:
        group = self.groups.get(key)
        if group is None:
            return ()
        ranks = self.ranks
        if rank is not None or len(ranks) < 2:
            history = self._history if rank is None else self._histories.get(rank)
            if history is not None and not any(m.scalar for m in group.members):
                return history.curves([(m.column, m.label) for m in group.members], upto)
            return tuple(self.curve(m, upto, rank) for m in group.members)
        if len(group.members) == 1:
            member = group.members[0]
            found = ((r, self.curve(member, upto, r)) for r in ranks)
            return tuple(replace(curve, label=f"r{r}") for r, curve in found if len(curve))
        return tuple(
            together([c for r in ranks if len(c := self.curve(m, upto, r))] or [
                self.curve(m, upto)], m.label)
            for m in group.members
        )  # fmt: skip

    def sampled_steps(self, upto: int | None = None) -> npt.NDArray[np.int64]:
        """The steps a cursor stops at: those of frames, or before any frame of scalars."""
        history: Envelope | None = self._history
        if history is not None and history.count == 0 and self._scalars:
            history = self._scalar(next(iter(self._scalars)))
        steps = history.steps if history is not None else np.zeros(0, np.int64)
        return steps if upto is None else steps[steps <= upto]

    def column_value(self, column: int, step: int | None = None, rank: int | None = None) -> float:
        """A column's newest value, or that of the last sample not after ``step``."""
        history = self._history if rank is None else self._histories.get(rank)
        return history.value(column, step) if history is not None else float("nan")

    def latest_values(self, key: str, step: int | None = None) -> tuple[float, ...]:
        """Newest value of every member of a chart, or those of the last sample up to ``step``."""
        group = self.groups.get(key)
        if group is None:
            return ()
        found = []
        for member in group.members:
            history = self._scalar(member.scalar) if member.scalar else self._history
            at = 0 if member.scalar else member.column
            found.append(history.value(at, step) if history is not None else float("nan"))
        return tuple(found)

    def measured(self, key: str) -> bool:
        """Some value of this chart was ever a number (infinity counts)."""
        return key in self.measured_keys

    @property
    def measured_keys(self) -> frozenset[str]:
        """The charts of which some value ever was."""
        groups, columns = self.groups, int(np.count_nonzero(self._measured))
        known = self._known_keys
        if known is None or known[0] is not groups or known[1] != columns:
            seen = self._measured.tolist()
            found = frozenset(
                key
                for key, group in groups.items()
                if any(m.scalar or seen[m.column] for m in group.members)
            )
            known = self._known_keys = (groups, columns, found)
        return known[2]

    def absence(self, key: str) -> str:
        """Why a chart has no values, in the probe's words; empty where it gave no reason."""
        if self.header is None:
            return ""
        node, _, metric = key.rpartition("/")
        for name in (key, whole_key(key), metric, *self._column_keys(key), node):
            if name in self.header.absent:
                return self.header.absent[name]
        return ""

    def _column_keys(self, key: str) -> list[str]:
        group = self.groups.get(key)
        if group is None or self.header is None:
            return []
        return [self.header.columns[m.column].key for m in group.members if m.column >= 0]

    def marks(self, upto: int | None = None) -> tuple[StepMark, ...]:
        """Vertical marks for the run's own events."""
        return tuple(
            StepMark(event.step, event.kind)
            for event in self.events
            if event.seq >= 0 and event.kind != "attached" and (upto is None or event.step <= upto)
        )
