"""Where to stop: at a verdict, a step, or a value of a chart. Pure: no screen, no thread.

A condition is written as ``faulty``, a category such as ``masking``, ``step 500``, ``training/loss
> 5``, ``training/loss < 1`` or ``training/loss nan`` (NaN or infinity); several with commas.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from diagnoser.diagnosis import Diagnosis
from diagnoser.taxonomy import categories
from monitor.envelope import NAN, Curve
from monitor.run_model import RunModel

FAULTY = "faulty"
SYNTAX = "faulty, a category, step 500, training/loss > 5, training/loss nan"
_VALUE = re.compile(r"^(?P<key>\S+)\s*(?:(?P<sign>[<>])\s*(?P<level>\S+)|\s(?P<nan>nan))$")
_STEP = re.compile(r"^step\s+(\d+)$")


class BreakpointError(ValueError):
    """What was typed is no condition; the message is one sentence."""


class Breakpoint(Struct, frozen=True):
    """One condition. ``name`` is a verdict, a category or the key of a chart."""

    text: str
    kind: Literal["verdict", "step", ">", "<", "nan"]
    name: str = ""
    level: float = 0.0


class _Watched(Struct):
    """How a condition stood when it was looked at last."""

    held: bool = False
    newest: tuple[bool, ...] = ()
    """Of each curve: whether its newest bucket met it."""


def parsed(text: str, charts: Collection[str]) -> tuple[Breakpoint, ...]:
    """The conditions in what was typed; ``charts`` are the keys there are.

    Raises :class:`BreakpointError`.
    """
    found = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        found.append(_one(part, charts))
    return tuple(found)


def _one(text: str, charts: Collection[str]) -> Breakpoint:
    if text == FAULTY or text in categories():
        return Breakpoint(text, "verdict", text)
    step = _STEP.match(text)
    if step is not None:
        return Breakpoint(text, "step", level=int(step[1]))
    value = _VALUE.match(text)
    if value is None:
        raise BreakpointError(f"“{text}” is no breakpoint: write {SYNTAX}")
    if value["key"] not in charts:
        raise BreakpointError(f"there is no chart “{value['key']}” to stop at: / finds their names")
    if value["nan"]:
        return Breakpoint(text, "nan", value["key"])
    try:
        level = float(value["level"])
    except ValueError:
        raise BreakpointError(f"“{value['level']}” is not a number") from None
    return Breakpoint(text, ">" if value["sign"] == ">" else "<", value["key"], level)


class Breakpoints:
    """The conditions in force. Each is met when it comes to hold, not while it goes on holding."""

    def __init__(self) -> None:
        self.points: tuple[Breakpoint, ...] = ()
        self._watched: dict[Breakpoint, _Watched] = {}
        self._seen = -1

    @property
    def text(self) -> str:
        """As they were typed."""
        return ", ".join(point.text for point in self.points)

    def put(
        self, points: Sequence[Breakpoint], model: RunModel, diagnosis: Diagnosis | None
    ) -> None:
        """Have these in place of the others; what holds already is met when it holds anew."""
        self.points = tuple(points)
        self._watched = {point: _Watched() for point in self.points}
        self.met(model, diagnosis)

    def met(self, model: RunModel, diagnosis: Diagnosis | None) -> Breakpoint | None:
        """The first condition that has come to hold since this was asked last."""
        found = [p for p in self.points if self._came_to_hold(p, model, diagnosis)]
        self._seen = -1 if model.step is None else model.step
        return found[0] if found else None

    def _came_to_hold(
        self, point: Breakpoint, model: RunModel, diagnosis: Diagnosis | None
    ) -> bool:
        watched = self._watched[point]
        before, between = watched.held, False
        if point.kind == "verdict":
            faulty = diagnosis is not None and diagnosis.verdict == "faulty"
            named = point.name in (FAULTY, diagnosis.category if diagnosis else None)
            watched.held = faulty and named
        elif point.kind == "step":
            watched.held = model.step is not None and model.step >= point.level
        else:
            watched.held, between = self._values(point, model.curves(point.name), watched)
        return not before and (watched.held or between)

    def _values(
        self, point: Breakpoint, curves: Sequence[Curve], watched: _Watched
    ) -> tuple[bool, bool]:
        """Whether it holds at the newest value, and whether it held since the last look."""
        holds, between, newest = False, False, []
        for index, curve in enumerate(curves):
            if not len(curve):
                newest.append(False)
                continue
            meets = _TESTS[point.kind](curve, point.level)
            new = curve.first > self._seen
            # The bucket that was filled at the last look may have met it before that.
            known = index < len(watched.newest) and watched.newest[index]
            filled = (curve.last > self._seen) & ~new & (not known)
            between = between or bool((meets & (new | filled)).any())
            holds = holds or _at_its_end(point, curve)
            newest.append(bool(meets[-1]))
        watched.newest = tuple(newest)
        return holds, between


def _not_finite(curve: Curve, level: float) -> npt.NDArray[np.bool_]:
    # Measured on rare samples only: absence is no news.
    return (curve.marks & (0xFF & ~NAN if curve.sparse else 0xFF)) > 0


_TESTS: dict[str, Callable[[Curve, float], npt.NDArray[np.bool_]]] = {
    ">": lambda curve, level: curve.high > level,
    "<": lambda curve, level: curve.low < level,
    "nan": _not_finite,
}


def _at_its_end(point: Breakpoint, curve: Curve) -> bool:
    value = float(curve.latest[-1])
    if point.kind == "nan":
        return bool(np.isinf(value) or (np.isnan(value) and not curve.sparse))
    return value > point.level if point.kind == ">" else value < point.level
