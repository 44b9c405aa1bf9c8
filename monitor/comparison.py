"""Other runs whose curves are looked at together with those of the run watched."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from msgspec import Struct, field

from monitor.charts.raster import cut
from monitor.charts.smoothing import smoothed
from monitor.diagnosing import Diagnosing, DiagnosisState, EngineFactory
from monitor.envelope import Curve
from monitor.merging import difference, middle, together
from monitor.model_state import taken
from monitor.reader import Reader
from monitor.run_model import RunModel
from monitor.sources.source import Source

WATCHED = "A"
"""Letter of the run watched."""
LETTERS = "BCDEFGH"
"""Letters of the others; as many runs can be compared with it."""


MOST_DIAGNOSED = 3
"""Other runs that are diagnosed; they take turns while the watched one has nothing waiting."""
MOST_WAITING = 1000
"""Frames of one of them that wait before its diagnosis goes over fewer of them."""
_TOO_MANY = DiagnosisState(
    "off",
    error=f"{MOST_DIAGNOSED} compared runs are diagnosed at once; take one of them away (c), then "
    "take this one away and compare it again",
)


class Stoppable(Protocol):
    """A thread of a run that is given up."""

    def stop(self) -> None: ...


class ComparedRun(Struct):
    """One other run, read by a thread of its own, followed while it grows.

    ``diagnosing`` None: as many as can be are diagnosed already.
    """

    letter: str
    run: str
    name: str
    reader: Reader
    diagnosing: Diagnosing | None
    diagnosis: DiagnosisState
    """What its own engine says, as far as it has come."""
    model: RunModel = field(default_factory=RunModel)

    def parts(self) -> list[Stoppable]:
        """What is still to be stopped when it is given up."""
        return [self.reader] if self.diagnosing is None else [self.diagnosing, self.reader]


class Comparison:
    """The runs laid over the watched one, and which of them is the baseline.

    ``baseline`` is the id of a run; None: the first of them.
    """

    def __init__(self, on_news: Callable[[], None] = lambda: None) -> None:
        self._on_news = on_news
        self.runs: list[ComparedRun] = []
        self.baseline: str | None = None

    def __bool__(self) -> bool:
        return bool(self.runs)

    def letter_of(self, run: str) -> str:
        """The letter of a compared run; empty for another."""
        return next((other.letter for other in self.runs if other.run == run), "")

    @property
    def base(self) -> ComparedRun | None:
        """The run that differences are taken from."""
        chosen = [other for other in self.runs if other.run == self.baseline]
        return next(iter(chosen or self.runs), None)

    @property
    def apart(self) -> str:
        """Letters of the runs whose difference from the baseline can be shown."""
        base = self.base
        others = (other.letter for other in self.runs if other is not base)
        return WATCHED + "".join(others) if base is not None else ""

    def model_of(self, letter: str) -> RunModel:
        """What was read of a compared run."""
        return next(other.model for other in self.runs if other.letter == letter)

    @property
    def full(self) -> bool:
        return len(self.runs) >= len(LETTERS)

    def add(
        self, run: str, name: str, source: Source, factory: EngineFactory | None = None
    ) -> ComparedRun:
        """Begin to read and to diagnose another run, with engines of ``factory`` (None: the
        product's). Raises ValueError where there are as many as can be."""
        if self.full:
            raise ValueError(f"{len(LETTERS)} runs are compared already")
        taken = {other.letter for other in self.runs}
        letter = next(letter for letter in LETTERS if letter not in taken)
        diagnosing = None
        if sum(other.diagnosing is not None for other in self.runs) < MOST_DIAGNOSED:
            diagnosing = Diagnosing(factory, self._on_news, MOST_WAITING)
            diagnosing.hold(True)
            diagnosing.start()
        feed = diagnosing.feed if diagnosing is not None else lambda records: None
        state = DiagnosisState() if diagnosing is not None else _TOO_MANY
        reader = Reader(source, feed, self._on_news)
        added = ComparedRun(letter, run, name, reader, diagnosing, state)
        self.runs.append(added)
        self.runs.sort(key=lambda other: other.letter)
        reader.start()
        return added

    def remove(self, run: str) -> list[Stoppable]:
        """Give up a run; what is returned is still to be stopped, which may take a moment."""
        gone = [other for other in self.runs if other.run == run]
        self.runs = [other for other in self.runs if other.run != run]
        if self.baseline == run:
            self.baseline = None
        self._on_news()  # it is the next one's turn
        return [part for other in gone for part in other.parts()]

    def clear(self) -> list[Stoppable]:
        """Give up all of them."""
        return [part for other in list(self.runs) for part in self.remove(other.run)]

    def drain(self) -> bool:
        """Take in what was read and found since the last time; True where there was anything."""
        news = False
        for other in self.runs:
            for batch in other.reader.drain():
                news = news or bool(batch.records) or batch.overview is not None
                other.model = taken(other.model, batch)
            if other.diagnosing is not None:
                other.diagnosing.take()  # a history is kept of the watched run alone
                state = other.diagnosing.state
                news = news or state is not other.diagnosis
                other.diagnosis = state
        return news

    def take_turns(self, free: bool) -> None:
        """Let the first run with frames to go over go on, the others wait; while not ``free``, all
        of them."""
        for other in self.runs:
            if other.diagnosing is not None:
                other.diagnosing.hold(not free)
                free = free and other.diagnosing.idle

    @property
    def waiting(self) -> bool:
        """More was read than the last drain took."""
        return any(other.reader.waiting for other in self.runs)


def overlaid(
    own: Sequence[Curve], others: Sequence[tuple[str, Sequence[Curve]]], weight: float
) -> tuple[tuple[Curve, ...], tuple[Curve, ...]]:
    """Curves of several runs, and what lies faint behind them.

    A run with one curve has that; of several layers it has their median, and behind it all that
    lies between the lowest and the highest of them.
    """
    curves, raw = [], []
    for letter, found in ((WATCHED, own), *others):
        if not found:
            continue
        line = middle(found, letter) if len(found) > 1 else together(found, letter)
        if len(found) > 1 or weight:
            raw.append(together(found, letter))
        curves.append(line)
    return smoothed(curves, weight), tuple(raw)


def differences(own: Sequence[Curve], base: Sequence[Curve]) -> tuple[Curve, ...]:
    """Each curve less the baseline's of the same layer, over the steps that both have; layers that
    it lacks are left out."""
    if len(own) == len(base) == 1:
        return (_shared(own[0], base[0]),)
    by_label = {curve.label: curve for curve in base}
    return tuple(_shared(curve, by_label[curve.label]) for curve in own if curve.label in by_label)


def _shared(curve: Curve, base: Curve) -> Curve:
    if len(base):
        curve = cut(curve, (int(base.first[0]), int(base.last[-1])))
    return difference(curve, base)
