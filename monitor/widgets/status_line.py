"""What there is to say, above the footer; nothing is there while there is nothing to say."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from monitor.charts.line import Line
from monitor.formatting import clipped
from monitor.widgets.line_pane import LinePane

MOST = 3
"""Lines it takes at most: the end of a sentence, such as a path, tells what to do."""


def told(text: str, width: int) -> list[str]:
    """The text in as many lines as it needs, at most MOST."""
    lines = textwrap.wrap(text, max(10, width))
    if len(lines) <= MOST:
        return lines
    return [*lines[: MOST - 1], clipped(" ".join(lines[MOST - 1 :]), width)]


class StatusLine(LinePane):
    """A sentence for the person: why the run was lost, what a request brought, the filter."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._text, self._role = "", "fg"

    def show(self, text: str, role: str = "fg") -> None:
        """Say ``text``; empty hides it."""
        self._text, self._role = text, role
        self.display = bool(text)
        self._fit()
        self.redraw()

    def on_resize(self) -> None:
        self._fit()
        super().on_resize()

    def _fit(self) -> None:
        lines = len(told(self._text, self.app.size.width - 2)) if self._text else 1
        if self.styles.height is None or self.styles.height.value != lines:
            self.styles.height = lines

    def compose_lines(self, width: int, height: int) -> Sequence[Line]:
        return [((text, self._role),) for text in told(self._text, width)]
