"""What is in front is drawn first, and what it hides is not drawn at all.

Textual lays every container's background out over its whole area with each picture, although panes
cover nearly all of it; on a screen of many panes that is most of the work of a small change.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, cast

from textual._compositor import Compositor
from textual.geometry import Region
from textual.strip import Strip

if TYPE_CHECKING:
    from rich.console import RenderableType
    from textual.screen import Screen

Chops = list[dict[int, Strip | None]]


class FrontFirst(Compositor):
    """Textual's compositor; :meth:`_render_chops` differs, but not in what it returns.

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
        if self.held and not full:
            return None
        return super().render_update(full, screen_stack, simplify)

    def _render_chops(
        self, crop: Region, is_rendered_line: Callable[[int], bool]
    ) -> Sequence[Mapping[int, Strip]]:
        cuts = self.cuts
        chops: Chops = [dict.fromkeys(line_cuts[:-1]) for line_cuts in cuts]
        first, end = crop.column_span
        # The pieces to fill, begin to end, by line. What lies outside the crop is not asked for.
        missing = {
            y: [span for span in pairwise(cuts[y]) if span[1] > first and span[0] < end]
            for y in crop.line_range
            if y < len(cuts) and is_rendered_line(y)
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
        return cast("Sequence[Mapping[int, Strip]]", chops)
