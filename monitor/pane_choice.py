"""Which pane of a view is chosen, which are hidden, which one is alone. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct, field


class PaneChoice(Struct):
    """Panes by their ids. ``current`` None: none was chosen yet, and none is marked."""

    current: str | None = None
    enlarged: str | None = None
    hidden: set[str] = field(default_factory=set)

    def move(self, panes: Sequence[str], by: int) -> None:
        """Choose another of the panes on screen, round the ends."""
        if not panes:
            return
        # Before any was chosen: the first, or the last.
        start = panes.index(self.current) if self.current in panes else -1 if by > 0 else 0
        self.current = panes[(start + by) % len(panes)]
        if self.enlarged is not None:
            self.enlarged = self.current

    def enlarge(self, pane: str) -> None:
        """One pane alone; the same again: all of them."""
        self.enlarged = None if self.enlarged == pane else pane
        self.current = pane

    def hide(self, pane: str, panes: Sequence[str]) -> bool:
        """Hide one of ``panes``, those on screen; False for the last one, which stays."""
        others = [other for other in panes if other != pane]
        if not others:
            return False
        self.hidden.add(pane)
        self.enlarged = None
        self.current = others[min(list(panes).index(pane), len(others) - 1)]
        return True

    def alone(self, panes: Sequence[str]) -> str | None:
        """The pane that has the whole view, of all that the view has."""
        if self.enlarged in panes:
            return self.enlarged
        shown = [pane for pane in panes if pane not in self.hidden]
        return shown[0] if len(shown) == 1 and len(panes) > 1 else None
