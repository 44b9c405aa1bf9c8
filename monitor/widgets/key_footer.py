"""The last line: the keys that matter now, from the key table."""

from __future__ import annotations

from collections.abc import Sequence

from monitor.charts.line import Line, Piece, width_of
from monitor.keys import Key
from monitor.widgets.line_pane import LinePane


def footer_line(keys: Sequence[Key], labels: dict[str, str], width: int) -> Line:
    """Keys and labels in one line; ``labels`` replaces the label of an action.

    Where they do not fit, those leave first that the table says can; all stay in the help.
    """
    shown = [key for key in keys if labels.get(key.action, key.footer)]
    told = {key.action: key.shown for key in keys}

    def line() -> Line:
        return _line([(_keys(key, told), labels.get(key.action, key.footer)) for key in shown])

    for most in sorted({key.leaves for key in shown}, reverse=True):
        if width_of(line()) <= width:
            break
        # One by one from the end of the table, so that as many as possible stay.
        for key in [key for key in reversed(shown) if key.leaves == most and most > 0]:
            shown = [other for other in shown if other is not key]
            if width_of(line()) <= width:
                break
    return line()


def _keys(key: Key, told: dict[str, str]) -> str:
    """The key, and the one that does the opposite: ``←→``, ``F2/F3``."""
    other = told.get(key.pair, "")
    between = "/" if other and len(key.shown) + len(other) > 2 else ""
    return f"{key.shown}{between}{other}"


def _line(shown: list[tuple[str, str]]) -> Line:
    pieces: list[Piece] = []
    for key, label in shown:
        pieces += [("  " if pieces else "", "fg"), (key, "accent bold"), (f" {label}", "muted")]
    return tuple(pieces)


class KeyFooter(LinePane):
    """The keys of the view on screen."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._keys: tuple[Key, ...] = ()
        self._labels: dict[str, str] = {}

    def show(self, keys: Sequence[Key], labels: dict[str, str]) -> None:
        """Draw keys, with other labels for some, e.g. ``Unpause`` while paused."""
        self._keys, self._labels = tuple(keys), labels
        self.redraw()

    def compose_lines(self, width: int, height: int) -> Sequence[Line]:
        return (footer_line(self._keys, self._labels, width),)
