"""A line of text as the widgets draw it: pieces, each with a role that the theme colours.

A role is a few words: a colour name of the palette (``fg muted faint accent ok warn bad``,
``s0``.. for series, ``h0``.. for heat, ``d0``.. for two-sided heat) and modifiers (``bold``,
``reverse``, ``on COLOUR``).
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

Piece = tuple[str, str]
Line = tuple[Piece, ...]


def text_of(line: Line) -> str:
    """The characters of a line, without their roles."""
    return "".join(text for text, _ in line)


def width_of(line: Iterable[Piece]) -> int:
    """Cells a line takes; every character the product draws is one cell wide."""
    return sum(len(text) for text, _ in line)


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


def from_cells(characters: npt.NDArray[np.str_], roles: npt.NDArray[np.object_]) -> Line:
    """A line from one character and one role per cell, equal neighbours joined."""
    pieces: list[Piece] = []
    start = 0
    for at in range(1, len(characters) + 1):
        if at == len(characters) or roles[at] != roles[start]:
            pieces.append(("".join(characters[start:at]), roles[start]))
            start = at
    return tuple(pieces)
