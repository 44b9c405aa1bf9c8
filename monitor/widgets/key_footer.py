"""The last line: the keys that matter now, from the key table."""

from __future__ import annotations

from collections.abc import Sequence

from monitor.charts.line import Line, Piece, width_of
from monitor.keys import Key
from monitor.widgets.line_pane import LinePane

_DROPPED_FIRST = (
    "next_view",
    "toggle_log",
    "sample",
    "next_chart",
    "choose_heatmap",
    "step_forward",
    "jump_flag",
    "faster",
    "filter",
    "jump",
)
"""On a narrow screen keys leave in this order; all of them stay in the help."""


def footer_line(keys: Sequence[Key], labels: dict[str, str], width: int) -> Line:
    """Keys and labels in one line; ``labels`` replaces the label of an action."""
    shown = [(key.action, key.shown, labels.get(key.action, key.footer)) for key in keys]
    shown = [entry for entry in shown if entry[2]]
    for action in ("", *_DROPPED_FIRST):
        shown = [entry for entry in shown if entry[0] != action]
        line = _line(shown)
        if width_of(line) <= width:
            break
    return line


def _line(shown: list[tuple[str, str, str]]) -> Line:
    pieces: list[Piece] = []
    for _, key, label in shown:
        pieces += [("  " if pieces else "", "fg"), (key, "accent bold"), (f" {label}", "muted")]
    return tuple(pieces)


class KeyFooter(LinePane):
    """The keys of the main screen."""

    def __init__(self, keys: Sequence[Key], *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._keys = keys
        self._labels: dict[str, str] = {}

    def show(self, labels: dict[str, str]) -> None:
        """Draw with other labels, e.g. ``Unpause`` while paused."""
        self._labels = labels
        self.redraw()

    def compose_lines(self, width: int, height: int) -> Sequence[Line]:
        return (footer_line(self._keys, self._labels, width),)
