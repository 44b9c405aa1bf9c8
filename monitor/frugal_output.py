"""What goes to the terminal, in as few bytes as say the same, and no more than a slow link carries.

Textual writes every piece of text with all its colours and a reset after it; of a picture of charts
and heatmaps most bytes are such sequences. Here a piece is preceded by what changes only.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable
from functools import cache, lru_cache
from typing import TYPE_CHECKING

from textual.strip import Strip

if TYPE_CHECKING:
    from rich.color import ColorSystem
    from rich.style import Style
    from textual.driver import Driver

RATE = 150_000
"""Bytes per second that pictures of new data may take together. A key's picture never waits."""
_COLOURS = re.compile("\x1b\\[([0-9;]*)m")
_MOVES = re.compile("(?:\x1b\\[[0-9;]*H|\n)*")
_RESET = "\x1b[0m"
_FEW_RESETS = 4
_LEAD = {"38": 0, "48": 1}
_SEEN_ON_SPACES = frozenset(["4", "7", "9", "21", "51", "52", "53"])
"""Attributes that show where there is no character: underlined, reversed, struck out, framed."""
State = tuple[frozenset[str], str, str]
"""Attributes, foreground, background; a colour is empty where it is the terminal's own."""
_NONE: State = (frozenset(), "", "")


class Pace:
    """When the next picture may be sent, so that a link of RATE is free for keys."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._free = 0.0

    def sent(self, count: int) -> None:
        """So many bytes are on their way."""
        self._free = max(self._free, self._clock()) + count / RATE

    @property
    def wait(self) -> float:
        """Seconds until the link has carried what was sent; at most a second is waited."""
        return min(max(0.0, self._free - self._clock()), 1.0)


class _Pen:
    """Writes text in its colours, each piece preceded by what changes only."""

    def __init__(self) -> None:
        self.written: list[str] = []
        self._held = _NONE

    def write(self, text: str, wanted: State) -> None:
        held = self._held
        if wanted is not held:
            if text.isspace() and not (wanted[0] | held[0]) & _SEEN_ON_SPACES:
                wanted = (wanted[0], held[1], wanted[2])  # a space has no colour of its own
            if wanted != held:
                self.written.append(_between(held, wanted))
                self._held = wanted
        self.written.append(text)

    def ended(self, state: State = _NONE) -> str:
        """All that was written, the pen left in a state."""
        if self._held != state:
            self.written.append(_between(self._held, state))
        return "".join(self.written)


def drawn(pieces: Iterable[tuple[int, int, Strip]], colours: ColorSystem) -> str:
    """Strips at their places (column, line, strip). Links are not drawn."""
    pen, place = _Pen(), (-1, -1)
    for column, line, strip in pieces:
        if place != (column, line):
            pen.written.append(f"\x1b[{line + 1};{column + 1}H")
        place = column + strip.cell_length, line
        for text, style, control in strip:
            if control:
                pen.written.append(text)
            elif text:
                pen.write(text, _NONE if style is None else _state_of(style, colours))
    return pen.ended()


def fewer(data: str) -> str:
    """The same text and colours with fewer sequences. It is taken to start without colours; what
    has few resets, as :func:`drawn` writes it, stays as it is."""
    if data.count(_RESET) <= _FEW_RESETS:
        return data
    parts = _COLOURS.split(data)
    pen, wanted = _Pen(), _NONE
    pen.written.append(parts[0])
    for codes, text in zip(parts[1::2], parts[2::2], strict=True):
        wanted = _after(wanted, codes)
        if not text or _MOVES.fullmatch(text):
            pen.written.append(text)
        else:
            pen.write(text, wanted)
    return pen.ended(wanted)


@lru_cache(maxsize=16384)
def _state_of(style: Style, colours: ColorSystem) -> State:
    """What a style makes of a terminal without colours."""
    return _after(_NONE, Strip.render_ansi(style, colours))


@lru_cache(maxsize=16384)
def _after(state: State, codes: str) -> State:
    """What a sequence makes of a state."""
    attributes, *colours = state
    kept = set(attributes)
    left = [code or "0" for code in codes.split(";")]
    while left:
        code = left.pop(0)
        if code == "0":
            kept, colours = set(), ["", ""]
        elif code in _LEAD:
            taken = 4 if left[:1] == ["2"] else 2
            colours[_LEAD[code]] = ";".join([code, *left[:taken]])
            del left[:taken]
        elif code == "39" or 30 <= int(code) < 38 or 90 <= int(code) < 98:
            colours[0] = "" if code == "39" else code
        elif code == "49" or 40 <= int(code) < 48 or 100 <= int(code) < 108:
            colours[1] = "" if code == "49" else code
        else:
            kept.add(code)
    return frozenset(kept), colours[0], colours[1]


@lru_cache(maxsize=65536)
def _between(old: State, new: State) -> str:
    """The shortest sequence from one state to another."""
    if new == _NONE:
        return _RESET
    whole = ["0", *sorted(new[0]), *(colour for colour in new[1:] if colour)]
    if old[0] <= new[0]:
        change = sorted(new[0] - old[0])
        change += [new[1] or "39"] if new[1] != old[1] else []
        change += [new[2] or "49"] if new[2] != old[2] else []
        whole = min(whole, change, key=lambda codes: len(";".join(codes)))
    return f"\x1b[{';'.join(whole)}m"


@cache
def frugal(driver: type[Driver]) -> type[Driver]:
    """A driver that writes less, and tells the app's ``pace`` how much it was."""

    class Frugal(driver):  # type: ignore[misc, valid-type]
        def write(self, data: str) -> None:
            written = fewer(data)
            self._app.pace.sent(len(written.encode(errors="replace")))
            super().write(written)

    return Frugal
