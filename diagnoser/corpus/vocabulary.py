"""A word-piece vocabulary by frequency, with single bytes to fall back on.

Small on purpose: a model of two layers shall learn visibly within a hundred steps.
"""

from __future__ import annotations

import re
from collections import Counter
from functools import lru_cache
from itertools import chain

import numpy as np
import numpy.typing as npt

from diagnoser.corpus.text import Module, modules

PAD, BEGIN, END, MASK = range(4)
SPECIALS = 4
BYTES = 256
SIZES = (320, 512, 1024, 2048)

_PIECE = re.compile(r"\n *| ?[A-Za-z_]+|[0-9]|\s|[^\sA-Za-z_0-9]")

Tokens = npt.NDArray[np.int64]


def _pieces(text: str) -> list[str]:
    return _PIECE.findall(text)


@lru_cache(maxsize=1)
def _frequent() -> tuple[str, ...]:
    """Pieces of more than one byte, the most frequent first; ties in alphabetical order."""
    counts: Counter[str] = Counter()
    for module in modules():
        counts.update(_pieces(module.code))
        counts.update(_pieces(module.prose))
    longer = [(piece, count) for piece, count in counts.items() if len(piece.encode()) > 1]
    return tuple(piece for piece, _ in sorted(longer, key=lambda item: (-item[1], item[0])))


class Vocabulary:
    """Maps text to ids: four specials, 256 bytes, then the most frequent pieces."""

    def __init__(self, size: int) -> None:
        if size < SPECIALS + BYTES:
            raise ValueError(f"a vocabulary needs at least {SPECIALS + BYTES} entries, not {size}")
        self.size = size
        chosen = _frequent()[: size - SPECIALS - BYTES]
        self._ids: dict[str, tuple[int, ...]] = {
            piece: (SPECIALS + BYTES + index,) for index, piece in enumerate(chosen)
        }

    def encode(self, text: str) -> Tokens:
        """Ids of ``text``, shape (tokens,), without specials."""
        ids = self._ids
        for piece in set(_pieces(text)) - ids.keys():
            ids[piece] = tuple(SPECIALS + byte for byte in piece.encode())
        return np.fromiter(
            chain.from_iterable(ids[piece] for piece in _pieces(text)), dtype=np.int64
        )


class EncodedModule:
    """A module's code and prose as ids."""

    def __init__(self, module: Module, vocabulary: Vocabulary) -> None:
        self.name = module.name
        self.code = vocabulary.encode(module.code)
        self.prose = vocabulary.encode(module.prose)


@lru_cache(maxsize=len(SIZES))
def encoded_modules(size: int) -> tuple[EncodedModule, ...]:
    """All text under a vocabulary of ``size`` entries; kept in memory for the process."""
    vocabulary = Vocabulary(size)
    return tuple(EncodedModule(module, vocabulary) for module in modules())
