"""What the keys do to a replay."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from monitor.model_state import pack
from monitor.run_model import RunModel
from monitor.sources.source import Position, Replayable, Source

MIN_SPEED, MAX_SPEED = 1 / 16, 1024.0


class Replaying:
    """A thin hand on a source that has a position."""

    def __init__(self, source: Replayable) -> None:
        self._source = source

    @classmethod
    def of(cls, source: Source) -> Replaying | None:
        """None where the source is a live run."""
        return cls(cast(Replayable, source)) if hasattr(source, "position") else None

    @property
    def position(self) -> Position:
        return self._source.position()

    def toggle(self) -> None:
        """Play, or pause; at the end, play again from the beginning."""
        position = self.position
        if position.at_end:
            self._source.jump(0)
        self._source.play(position.at_end or not position.playing)

    def play(self, playing: bool) -> None:
        """Play, or pause."""
        self._source.play(playing)

    def remember(self, model: RunModel) -> Callable[[], None] | None:
        """What keeps the overview of a long trace, to be called in a thread; None: no need."""
        remember = getattr(self._source, "remember", None)
        if remember is None or model.header is None:
            return None
        return cast("Callable[[], None] | None", remember(lambda: pack(model)))

    def change_speed(self, factor: float) -> None:
        """Multiply the speed, within 1/16 and 1024."""
        self._source.set_speed(min(max(self.position.speed * factor, MIN_SPEED), MAX_SPEED))

    def step(self, frames: int) -> None:
        """Pause, and move by frames."""
        self._source.play(False)
        self._source.step(frames)

    def jump(self, step: int) -> None:
        """Go to the first frame at or after a step."""
        self._source.jump(step)
