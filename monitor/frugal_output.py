"""What goes to the terminal, in as few bytes as say the same, and no more than a slow link carries.

Textual writes every piece of text with all its colours and a reset after it; of a picture of charts
and heatmaps most bytes are such sequences. Here a piece is preceded by what changes only.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from functools import cache, lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from textual.driver import Driver

RATE = 150_000
"""Bytes per second that pictures of new data may take together. A key's picture never waits."""
_COLOURS = re.compile("\x1b\\[([0-9;]*)m")
_MOVES = re.compile("(?:\x1b\\[[0-9;]*H|\n)*")
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


def fewer(data: str) -> str:
    """The same text and colours with fewer sequences. It is taken to start without colours."""
    parts = _COLOURS.split(data)
    if len(parts) == 1:
        return data
    found = [parts[0]]
    held = wanted = _NONE
    for codes, text in zip(parts[1::2], parts[2::2], strict=True):
        wanted = _after(wanted, codes)
        if not text or _MOVES.fullmatch(text):
            found.append(text)
            continue
        target = wanted
        if text.isspace() and not (wanted[0] | held[0]) & _SEEN_ON_SPACES:
            target = (wanted[0], held[1], wanted[2])  # a space has no colour of its own
        if target != held:
            found.append(_between(held, target))
            held = target
        found.append(text)
    if held != wanted:
        found.append(_between(held, wanted))
    return "".join(found)


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
        return "\x1b[0m"
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
