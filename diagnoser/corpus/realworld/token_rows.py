"""Rows of tokens from a made-up language that cannot be told without attention and positions.

A token follows from the one three places before it: three chains in turns. Small models learn it
within seconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch

VOCABULARY, PAD, BEGIN, MASK, FIRST = 64, 0, 1, 2, 3
IGNORED = -100

Padding = Literal["none", "right", "left"]
Batch = dict[str, torch.Tensor]

_BACK, _CHOICES = 3, 2
_SUCCESSORS = torch.randint(FIRST, VOCABULARY, (VOCABULARY, _CHOICES), generator=torch.Generator())
"""What may follow a token. The generator has torch's fixed default seed."""


def text(generator: torch.Generator, rows: int, length: int) -> torch.Tensor:
    """Token ids, (rows, length), the first one BEGIN."""
    ids = torch.randint(FIRST, VOCABULARY, (rows, length), generator=generator)
    choices = torch.randint(_CHOICES, (rows, length), generator=generator)
    ids[:, 0] = BEGIN
    for at in range(_BACK + 1, length):
        ids[:, at] = _SUCCESSORS[ids[:, at - _BACK], choices[:, at]]
    return ids


def padded(
    generator: torch.Generator, rows: int, length: int, padding: Padding
) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and attention mask, (rows, length) each; rows of a third of the length and more."""
    ids = text(generator, rows, length)
    if padding == "none":
        return ids, torch.ones_like(ids)
    lengths = torch.randint(length // 3, length + 1, (rows, 1), generator=generator)
    real = torch.arange(length)[None, :] < lengths
    ids = torch.where(real, ids, PAD)
    if padding == "left":
        ids, real = _turned(ids, lengths), _turned(real, lengths)
    return ids, real.long()


def _turned(rows: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    length = rows.shape[1]
    places = (torch.arange(length)[None, :] - (length - lengths)) % length
    return rows.gather(1, places)


def causal_batches(
    seed: int, *, rows: int = 8, length: int = 32, padding: Padding = "none"
) -> Iterator[Batch]:
    """Batches for a causal language model; padding is not to be learned."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        ids, mask = padded(generator, rows, length, padding)
        labels = ids.masked_fill(mask == 0, IGNORED)
        batch = {"input_ids": ids, "labels": labels}
        yield batch if padding == "none" else batch | {"attention_mask": mask}


def masked_batches(
    seed: int, *, rows: int = 8, length: int = 32, padding: Padding = "right"
) -> Iterator[Batch]:
    """Batches for a masked language model: a fifth of the real tokens is hidden."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        ids, mask = padded(generator, rows, length, padding)
        hidden = (torch.rand(ids.shape, generator=generator) < 0.2) & (mask == 1)
        labels = ids.masked_fill(~hidden, IGNORED)
        batch = {"input_ids": ids.masked_fill(hidden, MASK), "labels": labels}
        yield batch if padding == "none" else batch | {"attention_mask": mask}
