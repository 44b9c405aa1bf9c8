"""Blocks that run several times in one forward, as where all layers share their weights.

A call of such a block is a layer: its site has a number of its own.
"""

from __future__ import annotations

import weakref

import torch
from torch import nn

MOST = 128
"""Calls of one block that are told apart."""


class Turns:
    """Follows the calls of one stack's blocks through a forward."""

    def __init__(self, blocks: list[nn.Module]) -> None:
        self.blocks = list(dict.fromkeys(blocks))
        self._owner = {part: block for block in self.blocks for part in block.modules()}
        self._counts = dict.fromkeys(self.blocks, 0)
        self._order: list[tuple[nn.Module, int]] = []
        self._last: weakref.ref[torch.Tensor] | None = None
        self._chained = True

    def begins(self, block: nn.Module, given: object) -> None:
        """A block is called with ``given``."""
        if self._order and (self._last is None or given is not self._last()):
            self._chained = False
        self._order.append((block, self._counts[block]))
        self._counts[block] += 1

    def ended(self, result: object) -> None:
        """It returned ``result``."""
        self._last = weakref.ref(result) if isinstance(result, torch.Tensor) else None

    def of(self, module: nn.Module) -> int:
        """Which call of its block is under way, from 0; 0 for modules outside the blocks."""
        block = self._owner.get(module)
        return max(0, self._counts[block] - 1) if block is not None else 0

    def order(self) -> list[tuple[nn.Module, int]]:
        """(block, call) in the order of the data flow, where blocks ran again on what the last one
        gave; else, as where one model encodes two inputs, empty."""
        again = len(self.blocks) < len(self._order) <= MOST
        return self._order if again and self._chained else []
