"""Other runs whose curves are looked at together with those of the run watched."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from monitor.charts.smoothing import smoothed
from monitor.envelope import Curve
from monitor.merging import difference, middle, together
from monitor.reader import Reader
from monitor.run_model import RunModel
from monitor.sources.source import Source

WATCHED = "A"
"""Letter of the run watched."""
LETTERS = "BCDEFGH"
"""Letters of the others; as many runs can be compared with it."""


@dataclass
class ComparedRun:
    """One other run, read by a thread of its own, followed while it grows."""

    letter: str
    run: str
    name: str
    reader: Reader
    model: RunModel = field(default_factory=RunModel)


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
    def full(self) -> bool:
        return len(self.runs) >= len(LETTERS)

    def add(self, run: str, name: str, source: Source) -> ComparedRun:
        """Begin to read another run. Raises ValueError where there are as many as can be."""
        if self.full:
            raise ValueError(f"{len(LETTERS)} runs are compared already")
        taken = {other.letter for other in self.runs}
        letter = next(letter for letter in LETTERS if letter not in taken)
        reader = Reader(source, lambda records: None, self._on_news)
        self.runs.append(ComparedRun(letter, run, name, reader))
        self.runs.sort(key=lambda other: other.letter)
        reader.start()
        return self.runs[-1]

    def remove(self, run: str) -> list[Reader]:
        """Give up a run; its reader is still to be stopped, which may take a moment."""
        gone = [other for other in self.runs if other.run == run]
        self.runs = [other for other in self.runs if other.run != run]
        if self.baseline == run:
            self.baseline = None
        return [other.reader for other in gone]

    def clear(self) -> list[Reader]:
        """Give up all of them."""
        return [reader for other in list(self.runs) for reader in self.remove(other.run)]

    def drain(self) -> bool:
        """Take in what was read since the last time; True where there was anything."""
        news = False
        for other in self.runs:
            for batch in other.reader.drain():
                news = news or bool(batch.records)
                other.model.take(batch)
        return news

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
        curves.append(smoothed(line, weight) if weight else line)
    return tuple(curves), tuple(raw)


def differences(own: Sequence[Curve], base: Sequence[Curve]) -> tuple[Curve, ...]:
    """Each curve less the baseline's of the same layer; those that it lacks are left out."""
    if len(own) == len(base) == 1:
        return (difference(own[0], base[0]),)
    by_label = {curve.label: curve for curve in base}
    return tuple(
        difference(curve, by_label[curve.label]) for curve in own if curve.label in by_label
    )
