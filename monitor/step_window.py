"""Which steps the charts show, and where the cursor stands. Pure: no screen, no thread."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from msgspec import Struct

Span = tuple[int, int]
SMALLEST = 4
"""Steps that a zoom shows at least."""


class StepWindow(Struct):
    """``zoomed`` None: all steps, new ones included. A zoom stays as it is when data arrive."""

    cursor: int | None = None
    zoomed: Span | None = None

    def span(self, whole: Span) -> Span:
        """Steps from the left to the right edge of the charts."""
        return self.zoomed or whole

    def move(self, steps: npt.NDArray[np.int64], by: int, whole: Span) -> None:
        """Move the cursor by samples; it first appears at the newest one in view.

        A zoom follows the cursor out of its edges.
        """
        if not len(steps):
            return
        if self.cursor is None:
            edge = self.span(whole)[1]
            at = max(int(np.searchsorted(steps, edge, side="right")) - 1, 0)
        else:
            # Between two samples, one step on is the next sample, one back the previous.
            before, after = (
                int(np.searchsorted(steps, self.cursor, side="left")),
                int(np.searchsorted(steps, self.cursor, side="right")),
            )
            at = after - 1 + by if by > 0 else before + by
        self.put(int(steps[min(max(at, 0), len(steps) - 1)]))

    def put(self, step: int) -> None:
        """Place the cursor, and move a zoom so that it is seen."""
        self.cursor = step
        if self.zoomed is not None and not self.zoomed[0] <= step <= self.zoomed[1]:
            width = self.zoomed[1] - self.zoomed[0]
            first = step if step < self.zoomed[0] else step - width
            self.zoomed = (first, first + width)

    def zoom(self, factor: float, whole: Span, centre: float | None = None) -> None:
        """Show ``factor`` times as many steps around the cursor, or around ``centre``.

        Zoomed out to everything, the charts follow new data again.
        """
        first, last = self.span(whole)
        width = last - first
        wanted = max(SMALLEST, round(width * factor))
        if centre is None:
            inside = self.cursor is not None and first <= self.cursor <= last
            centre = self.cursor if inside else (first + last) / 2
        assert centre is not None
        share = (centre - first) / max(width, 1)
        self._show(round(centre - share * wanted), wanted, whole)

    def pan(self, share: float, whole: Span) -> None:
        """Move a zoom by a share of its width."""
        if self.zoomed is not None:
            width = self.zoomed[1] - self.zoomed[0]
            by = max(1, round(abs(share) * width)) * (1 if share > 0 else -1)
            self._show(self.zoomed[0] + by, width, whole)

    def _show(self, first: int, width: int, whole: Span) -> None:
        if width >= whole[1] - whole[0]:
            self.zoomed = None
            return
        first = min(max(first, whole[0]), whole[1] - width)
        self.zoomed = (first, first + width)

    def leave(self) -> bool:
        """Give up the cursor, or else the zoom; False where there is neither."""
        if self.cursor is not None:
            self.cursor = None
        elif self.zoomed is not None:
            self.zoomed = None
        else:
            return False
        return True
