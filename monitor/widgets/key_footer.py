"""The last line: the keys that matter now, from the key table; a click does what a key does."""

from __future__ import annotations

from collections.abc import Sequence

from textual.events import Click

from monitor.charts.line import Line, Piece, width_of
from monitor.keys import Key
from monitor.widgets.line_pane import LinePane

Place = tuple[int, int, str]
"""First cell, the one after the last, and the action of a key in the footer."""


def footer_line(keys: Sequence[Key], labels: dict[str, str], width: int) -> Line:
    """Keys and labels in one line; ``labels`` replaces the label of an action.

    Where they do not fit, those leave first that the table says can; all stay in the help.
    """
    return footer(keys, labels, width)[0]


def footer(
    keys: Sequence[Key], labels: dict[str, str], width: int
) -> tuple[Line, tuple[Place, ...]]:
    """The line of :func:`footer_line`, and where in it each command stands."""
    shown = [key for key in keys if labels.get(key.action, key.footer)]
    told = {key.action: key.shown for key in keys}

    def laid() -> tuple[Line, tuple[Place, ...]]:
        return _laid(shown, told, labels)

    for most in sorted({key.leaves for key in shown}, reverse=True):
        if width_of(laid()[0]) <= width:
            break
        # One by one from the end of the table, so that as many as possible stay.
        for key in [key for key in reversed(shown) if key.leaves == most and most > 0]:
            shown = [other for other in shown if other is not key]
            if width_of(laid()[0]) <= width:
                break
    return laid()


def _laid(
    shown: Sequence[Key], told: dict[str, str], labels: dict[str, str]
) -> tuple[Line, tuple[Place, ...]]:
    pieces: list[Piece] = []
    places: list[Place] = []
    for key in shown:
        if pieces:
            pieces.append(("  ", "fg"))
        start = width_of(pieces)
        # The key, and the one that does the opposite: ``←→``, ``F2/F3``.
        other = told.get(key.pair, "")
        between = "/" if other and len(key.shown) + len(other) > 2 else ""
        pieces.append((f"{key.shown}{between}{other}", "accent bold"))
        pieces.append((f" {labels.get(key.action, key.footer)}", "muted"))
        if other:
            middle = start + len(key.shown)
            places.append((start, middle, key.action))
            places.append((middle + len(between), middle + len(between) + len(other), key.pair))
            start = places[-1][1]
        # The label goes with the key; with two of them it is the second's, the one that goes on.
        places.append((start, width_of(pieces), key.pair if other else key.action))
    return tuple(pieces), tuple(places)


class KeyFooter(LinePane):
    """The keys of the view on screen."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._keys: tuple[Key, ...] = ()
        self._labels: dict[str, str] = {}

    def show(self, keys: Sequence[Key], labels: dict[str, str]) -> None:
        """Draw keys, with other labels for some, e.g. ``Unpause`` while paused."""
        self._keys, self._labels = tuple(keys), labels
        self.redraw_of(self._keys, labels)

    def compose_lines(self, width: int, height: int) -> Sequence[Line]:
        return (footer_line(self._keys, self._labels, width),)

    async def on_click(self, event: Click) -> None:
        at = event.get_content_offset(self)
        if at is None:
            return
        _, places = footer(self._keys, self._labels, self.content_size.width)
        for start, stop, action in places:
            if start <= at.x < stop:
                await self.app.run_action(action)
