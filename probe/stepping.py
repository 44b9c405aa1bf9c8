"""When a step is over, where several optimizers share the work. Pure."""

from __future__ import annotations


class Stepping:
    """A step is over when each of ``count`` optimizers has stepped once.

    Where some sit a step out (they alternate, or a gradient scaler held one back), it is over when
    the next training forward begins or one that has stepped is about to step again: no later
    optimizer can then belong to it. So "the last of those that stepped" is known without asking
    which those will be.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._done: set[int] = set()

    @property
    def begun(self) -> bool:
        """Some have stepped and the step is not over: it is, if a forward begins now."""
        return bool(self._done)

    def begins(self, place: int) -> bool:
        """An optimizer is about to step; True if the step before is over by that."""
        return place in self._done

    def stepped(self, place: int) -> bool:
        """An optimizer has stepped; True if the step is over."""
        self._done.add(place)
        return len(self._done) == self._count

    def over(self) -> None:
        """Begin the next step."""
        self._done.clear()
