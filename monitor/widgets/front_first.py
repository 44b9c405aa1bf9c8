"""What is in front is drawn first, and what it hides is not drawn at all.

Textual lays every container's background out over its whole area with each picture, although panes
cover nearly all of it; on a screen of many panes that is most of the work of a small change.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, cast

from rich.color import ColorSystem
from textual._compositor import Compositor, CompositorUpdate
from textual._context import visible_screen_stack
from textual.geometry import Region
from textual.strip import Strip

from monitor.frugal_output import drawn

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from textual.screen import Screen

Piece = tuple[int, int, Strip]
"""Column, line, and what is drawn there."""


class Changes(CompositorUpdate):
    """What is to be drawn anew of a screen."""

    def __init__(self, pieces: list[Piece]) -> None:
        self.pieces = pieces

    def render_segments(self, console: Console) -> str:
        return drawn(self.pieces, console._color_system or ColorSystem.TRUECOLOR)


class FrontFirst(Compositor):
    """Textual's compositor; what it draws is the same.

    While it is ``held`` nothing is drawn: a screen whose panes are still to get their sizes and
    their data would be drawn three times before there is anything to see.
    """

    held = False

    def render_update(
        self,
        full: bool = False,
        screen_stack: list[Screen[object]] | None = None,
        simplify: bool = False,
    ) -> RenderableType | None:
        if full:
            return super().render_update(full, screen_stack, simplify)
        if self.held or not self._dirty_regions:
            return None
        visible_screen_stack.set(screen_stack or [])
        spans = list(self._regions_to_spans(self._dirty_regions))
        self._dirty_regions.clear()
        return cast("RenderableType", Changes(self._pieces(spans)))

    def _pieces(self, spans: list[tuple[int, int, int]]) -> list[Piece]:
        """What lies in the spans (line, first column, end)."""
        lines: dict[int, list[tuple[int, int]]] = {}
        for y, first, end in spans:
            if y < len(self.cuts):
                lines.setdefault(y, []).extend(
                    span for span in pairwise(self.cuts[y]) if span[1] > first and span[0] < end
                )
        chops = self._filled({y: list(dict.fromkeys(wanted)) for y, wanted in lines.items()})
        return [(start, y, strip) for y, line in chops.items() for start, strip in line.items()]

    def _render_chops(
        self, crop: Region, is_rendered_line: Callable[[int], bool]
    ) -> Sequence[Mapping[int, Strip]]:
        first, end = crop.column_span
        missing = {
            y: [span for span in pairwise(self.cuts[y]) if span[1] > first and span[0] < end]
            for y in crop.line_range
            if y < len(self.cuts) and is_rendered_line(y)
        }
        chops = self._filled(missing)
        return [chops.get(y, {}) for y in range(len(self.cuts))]

    def _filled(self, missing: dict[int, list[tuple[int, int]]]) -> dict[int, dict[int, Strip]]:
        """The strips of all pieces, (begin, end) by line, by their first column."""
        chops: dict[int, dict[int, Strip | None]] = {
            y: dict.fromkeys(start for start, _ in spans) for y, spans in missing.items()
        }
        for widget, (region, clip) in self.visible_widgets.items():
            if not missing:
                break
            shown = region.intersection(clip)
            left, right = shown.column_span
            within = [
                (y, spans)
                for y in shown.line_range
                if y in missing and (spans := [s for s in missing[y] if left <= s[0] < right])
            ]
            if not within:
                continue
            top, bottom = within[0][0], within[-1][0]
            strips = widget.render_lines(
                Region(left - region.x, top - region.y, right - left, bottom - top + 1)
            )
            for y, spans in within:
                line, strip = chops[y], strips[y - top]
                for start, stop in spans:
                    line[start] = strip.crop(start - left, stop - left)
                if len(spans) == len(missing[y]):
                    del missing[y]
                else:
                    missing[y] = [span for span in missing[y] if span not in spans]
        return cast("dict[int, dict[int, Strip]]", chops)
