"""Results kept as long as what they were made of stays the same objects."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Generic, TypeVar

Result = TypeVar("Result")


class Kept(Generic[Result]):
    """At most ``most`` results, those asked for last. Comparing arrays by their values would take
    as long as working with them: what is the same object again gives the same object again."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._found: dict[Hashable, tuple[Sequence[object], Result]] = {}

    @property
    def size(self) -> int:
        """Results held now."""
        return len(self._found)

    def of(
        self, objects: Sequence[object], settings: Hashable, make: Callable[[], Result]
    ) -> Result:
        """What ``make`` gave for these very objects with these settings, else what it gives now."""
        asked = (tuple(map(id, objects)), settings)
        found = self._found.pop(asked, None)
        if found is None:
            while len(self._found) >= self._most:
                del self._found[next(iter(self._found))]
            found = (tuple(objects), make())
        # The objects are held: no others get their ids.
        self._found[asked] = found
        return found[1]
