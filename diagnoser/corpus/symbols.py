"""Questions on made-up symbols: ids without any text behind them, and their answers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from diagnoser.corpus.vocabulary import END, SPECIALS, Tokens

Question = Callable[[int, int, np.random.Generator], tuple[Tokens, Tokens]]
"""(tokens, vocabulary, generator) -> question and answer, together about ``tokens`` long."""

KEYS = 64
VALUES = 32
MODULUS = 17
CANDIDATES = 4


def _symbols(high: int, count: int, rng: np.random.Generator, first: int = 0) -> Tokens:
    return rng.integers(SPECIALS + first, SPECIALS + first + high, count)


def sort(length: int, size: int, rng: np.random.Generator) -> tuple[Tokens, Tokens]:
    """The same symbols in ascending order."""
    given = _symbols(VALUES, max(2, length // 2), rng)
    return given, np.sort(given)


def recall(length: int, size: int, rng: np.random.Generator) -> tuple[Tokens, Tokens]:
    """Keys with their values, then keys alone: what were their values?"""
    count = max(1, (length - 1) // 4)
    keys = SPECIALS + rng.permutation(KEYS)[:count]
    values = _symbols(VALUES, count, rng, first=KEYS)
    shown = np.stack([keys, values], axis=1).ravel()
    asked = rng.permutation(count)
    return np.concatenate([shown, [END], keys[asked]]), values[asked]


def modular(length: int, size: int, rng: np.random.Generator) -> tuple[Tokens, Tokens]:
    """Sums of pairs, modulo a prime."""
    count = max(1, length // 3)
    pairs = rng.integers(0, MODULUS, (count, 2))
    return SPECIALS + pairs.ravel(), SPECIALS + pairs.sum(axis=1) % MODULUS


def majority(length: int, size: int, rng: np.random.Generator) -> tuple[Tokens, int]:
    """Which of a few symbols stands there most often? There is always one."""
    drawn = rng.integers(0, CANDIDATES, max(2, length))
    winner = int(np.bincount(drawn, minlength=CANDIDATES).argmax())
    drawn[rng.permutation(len(drawn))[: max(1, len(drawn) // 6)]] = winner
    winner = int(np.bincount(drawn, minlength=CANDIDATES).argmax())
    return SPECIALS + drawn, winner


def parity(length: int, size: int, rng: np.random.Generator) -> tuple[Tokens, int]:
    """Does the first symbol stand there an even number of times?"""
    drawn = rng.integers(0, 2, max(1, length))
    return SPECIALS + drawn, int((drawn == drawn[0]).sum() % 2)
