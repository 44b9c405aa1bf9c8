"""The two lines at the top: which run this is, how it goes, how we hear of it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from msgspec import Struct

from monitor import glyphs
from monitor.charts.line import Line, Piece, fitted, spread, width_of
from monitor.formatting import clipped, number
from monitor.sources.source import Link, Position
from monitor.widgets.line_pane import LinePane
from probe.schema import Anatomy

_LINKS: dict[str, tuple[str, str, str]] = {
    "connecting": (glyphs.WAITING, "connecting", "accent"),
    "live": (glyphs.LIVE, "live", "ok"),
    "silent": (glyphs.SILENT, "silent", "warn"),
    "lost": (glyphs.LOST, "lost", "bad"),
    "ended": (glyphs.ENDED, "ended", "muted"),
    "replay": (glyphs.PLAYING, "replay", "accent"),
}
_STATES: dict[str, tuple[str, str, str]] = {
    "waiting": (glyphs.WAITING, "waiting for the first step", "muted"),
    "training": (glyphs.PLAYING, "training", "ok"),
    "paused": (glyphs.PAUSED, "training paused", "warn"),
    "closed": (glyphs.ENDED, "training ended", "muted"),
    "off": (glyphs.LOST, "probe off", "bad"),
}


YOUNG_SECONDS = 30.0
"""A run younger than this was looked at a dozen times at once, for an early verdict: what the probe
costs is still falling to its budget."""


class HeaderData(Struct, frozen=True):
    """What the header says."""

    title: str
    run: str = ""
    anatomy: Anatomy | None = None
    step: int | None = None
    steps_per_second: float = float("nan")
    loss: float = float("nan")
    loss_known: bool = False
    overhead: float = float("nan")
    every: str = ""
    """Which steps the probe samples, as it was told: a number, or ``auto``."""
    seconds: float = float("inf")
    """How long the run has been training, as far as is known."""
    ignored: int = 0
    link: Link = "connecting"
    state: str = ""
    view_paused: bool = False
    position: Position | None = None


def header_lines(data: HeaderData, width: int) -> tuple[Line, Line]:
    """Two lines of exactly ``width`` cells."""
    return _identity(data, width), _numbers(data, width)


def _identity(data: HeaderData, width: int) -> Line:
    right = _status(data)
    if width_of(right) > width // 2:
        right = _status(data, short=True)
    room = width - width_of(right) - 2
    name = clipped(data.run or data.title, room)
    left: list[Piece] = [(name, "fg bold")]
    if data.anatomy is not None:
        for detail in (*_shapes(data.anatomy), ""):
            if detail and width_of(left) + 2 + len(detail) <= room:
                left.append((f"  {detail}", "muted"))
                break
    if data.run and data.title and data.title != data.run:
        origin = f"  {data.title}"
        if width_of(left) + len(origin) <= room:
            left.append((origin, "muted"))
    return spread(left, right, width)


def _shapes(anatomy: Anatomy) -> tuple[str, ...]:
    size = f"{anatomy.layers} layers × {anatomy.width} × {anatomy.heads} heads"
    parameters = f"{number(anatomy.parameters)} parameters" if anatomy.parameters else ""
    full = f"{anatomy.model}  {size}"
    return (f"{full}  {parameters}".rstrip(), full, anatomy.model)


def _status(data: HeaderData, short: bool = False) -> list[Piece]:
    glyph, word, role = _LINKS[data.link]
    position = data.position
    if position is not None:
        glyph = glyphs.PLAYING if position.playing else glyphs.PAUSED
        word = f"replay {position.speed:g}×" if position.playing else "replay paused"
        if position.at_end:
            glyph, word = glyphs.ENDED, "replay, at its end"
    pieces: list[Piece] = [(f"{glyph} {word}", f"{role} bold")]
    over = data.link in ("lost", "ended", "replay")
    state = "" if over else data.state
    if state == "paused" and data.view_paused:
        pieces.append((f"   {glyphs.PAUSED} training and view paused", "warn bold"))
        return pieces
    if state in _STATES:
        glyph, word, role = _STATES[state]
        word = word.split()[-1] if short else word
        pieces.append((f"   {glyph} {word}", role))
    if data.view_paused:
        text = "view" if short else "view paused"
        pieces.append((f"   {glyphs.PAUSED} {text}", "warn bold"))
    return pieces


def _numbers(data: HeaderData, width: int) -> Line:
    left: list[Piece] = []
    step = "–" if data.step is None else str(data.step)
    if data.position is not None:
        step = f"{data.position.step} of {data.position.last_step}"
    loss_role = "fg" if math.isfinite(data.loss) or not data.loss_known else "bad bold"
    loss = number(data.loss, 4) if data.loss_known else "–"
    fields = [("step", step, "fg"), ("loss", loss, loss_role)]
    if math.isfinite(data.steps_per_second):
        fields.insert(1, ("", f"{number(data.steps_per_second)} steps/s", "fg"))
    if math.isfinite(data.overhead):
        # Who asked for it knows why it costs what it costs; who looks at a demo does not.
        told = " to measure every step" if data.every == "1" else ""
        if data.every == "auto" and data.seconds < YOUNG_SECONDS:
            told = " at first"
        fields.append(("probe costs", f"{number(data.overhead * 100, 2)} %{told}", "fg"))
    if data.ignored:
        fields.append(("ignored", f"{data.ignored} unreadable", "warn"))
    for name, value, role in fields:
        gap = "   " if left else ""
        left.append((f"{gap}{name}{' ' if name else ''}", "muted"))
        left.append((value, role))
    return fitted(left, width)


class RunHeader(LinePane):
    """The header of the screen."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._data = HeaderData("")

    def show(self, data: HeaderData) -> None:
        """Draw new contents."""
        self._data = data
        self.redraw()

    def compose_lines(self, width: int, height: int) -> Sequence[Line]:
        return header_lines(self._data, width)
