"""A picture of new data, in two parts that both leave time for keys: first what takes long is
prepared, and nothing of it is seen; then it is drawn."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from monitor.in_pieces import InPieces, Piece


class GentlePicture:
    """``later`` calls something after so many seconds, once what came meanwhile is done."""

    def __init__(self, later: Callable[[float, Callable[[], None]], object]) -> None:
        self.preparing, self.drawing = InPieces(later), InPieces(later)

    @property
    def unfinished(self) -> bool:
        """Some of it is still to be prepared or drawn."""
        return self.preparing.unfinished or self.drawing.unfinished

    def begin(
        self,
        preparations: Iterable[Piece],
        pieces: Callable[[], Iterable[Piece]],
        wanted: Callable[[], bool],
    ) -> None:
        """Prepare, then draw the ``pieces`` as they are by then; as long as it is wanted."""
        then = [lambda: self.drawing.begin(pieces(), wanted)]
        self.preparing.begin([*preparations, *then], wanted)

    def drop(self) -> None:
        """All of it was drawn otherwise, or is not wanted any more."""
        self.preparing.drop()
        self.drawing.drop()
