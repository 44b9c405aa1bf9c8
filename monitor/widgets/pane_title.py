"""The title of a pane, as it is: no markup in it, ASCII where that is wanted, set only if new."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from textual.content import Content
from textual.widget import Widget

from monitor.glyphs import to_ascii
from monitor.widgets.line_pane import safe

if TYPE_CHECKING:
    from monitor.app import MonitorApp


def set_title(pane: Widget, text: str) -> None:
    """Show a title in a pane's upper border.

    What a person typed or a run is called may hold brackets, which are no markup. Setting a title
    draws the whole pane again, so that one that is there already is left alone.
    """
    shown = to_ascii(text) if cast("MonitorApp", pane.app).ascii_only else text
    title = Content(safe(shown))
    if pane.border_title != title.markup:
        pane.border_title = title


def title_text(pane: Widget) -> str:
    """The title in the upper border as a person reads it; empty where there is none."""
    return Content.from_markup(pane.border_title).plain if pane.border_title else ""
