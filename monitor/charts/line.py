"""A line of text as the widgets draw it: pieces, each with a role that the theme colours.

A role is a few words: a colour name of the palette (``fg muted faint accent ok warn bad``,
``s0``.. for series, ``h0``.. for heat, ``d0``.. for two-sided heat) and modifiers (``bold``,
``reverse``, ``on COLOUR``).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby

import numpy as np
import numpy.typing as npt

Piece = tuple[str, str]
Line = tuple[Piece, ...]


def text_of(line: Line) -> str:
    """The characters of a line, without their roles."""
    return "".join([text for text, _ in line])


def width_of(line: Iterable[Piece]) -> int:
    """Cells a line takes; every character the product draws is one cell wide."""
    return sum([len(text) for text, _ in line])


def fitted(line: Iterable[Piece], width: int, role: str = "fg") -> Line:
    """The line cut or padded to exactly ``width`` cells."""
    pieces, left = [], width
    for text, piece_role in line:
        if left <= 0:
            break
        pieces.append((text[:left], piece_role))
        left -= len(text)
    if left > 0:
        pieces.append((" " * left, role))
    return tuple(pieces)


def spread(left: Iterable[Piece], right: Iterable[Piece], width: int) -> Line:
    """``left`` at the left edge, ``right`` at the right one; the left gives way."""
    right = tuple(right)
    room = width - width_of(right)
    if room <= 0:
        return fitted(right, width)
    return (*fitted(left, room), *right)


def from_cells(characters: Sequence[str], roles: Sequence[str]) -> Line:
    """A line from one character and one role per cell, equal neighbours joined."""
    pieces, start = [], 0
    for role, alike in groupby(roles):
        stop = start + sum(1 for _ in alike)
        pieces.append(("".join(characters[start:stop]), role))
        start = stop
    return tuple(pieces)


def from_grid(
    characters: npt.NDArray[np.str_], codes: npt.NDArray[np.int64], roles: Sequence[str]
) -> list[Line]:
    """A line for each row of cells, shape (rows, columns), equal neighbours joined.

    ``codes`` are places in ``roles``.
    """
    rows, columns = characters.shape
    if not columns:
        return [()] * rows
    text = np.ascontiguousarray(characters, "<U1").tobytes().decode("utf-32-le")
    begins = np.ones((rows, columns), bool)
    begins[:, 1:] = codes[:, 1:] != codes[:, :-1]
    starts = np.flatnonzero(begins)
    pieces = [
        (text[start:stop], roles[code])
        for start, stop, code in zip(
            starts.tolist(),
            [*starts[1:].tolist(), len(text)],
            codes.reshape(-1)[starts].tolist(),
            strict=True,
        )
    ]
    ends = np.cumsum(begins.sum(axis=1)).tolist()
    return [tuple(pieces[first:last]) for first, last in zip([0, *ends[:-1]], ends, strict=True)]
