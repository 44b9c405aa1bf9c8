"""What a picture is of: the curves as they were when it was begun."""

from __future__ import annotations

from collections.abc import Callable, Hashable

from monitor.envelope import Curve

Curves = tuple[Curve, ...]
KEPT = 64
"""Charts whose curves are kept: a key moves a cursor, not the curves."""


class Snapshot:
    """``contents`` is what the model had read then, ``reach`` its first and last step. Curves are
    made when first asked for, and are the same objects afterwards."""

    def __init__(self, contents: int, reach: tuple[int, int | None]) -> None:
        self.contents, self.reach = contents, reach
        self._found: dict[Hashable, Curves] = {}

    def curves(self, asked: Hashable, make: Callable[[], Curves]) -> Curves:
        """Those made for the same question, else what ``make`` gives now."""
        found = self._found.get(asked)
        if found is None:
            if len(self._found) >= KEPT:
                del self._found[next(iter(self._found))]
            found = self._found[asked] = make()
        return found
