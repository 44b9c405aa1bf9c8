"""What cross-attention reads, in one sampled forward: which modules are given the states of another
stack (the *memory* of a decoder), and what is picked of those."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from probe.anatomy import ModelParts
from probe.batch import Batch, picked_of
from probe.captured import Capture
from probe.rows import Picked


class Crossing:
    """``attentions``: the modules that cross; ``of_memory``: linears that are given the memory."""

    def __init__(self, parts: ModelParts, capture: Capture) -> None:
        self._parts = parts
        self._capture = capture
        self._find()

    def _find(self) -> None:
        found = [part for part in self._parts.attentions if part.crossing]
        self.attentions = {part.attention for part in found}
        self.of_memory = {m for part in found for m in (part.key, part.value, part.fused)}

    def pick(self, size: int, length: int, device: torch.device) -> Picked | None:
        """What is picked of ``size`` rows of ``length`` states: as of the encoder's, where they are
        its. None for others than the first that were read."""
        capture = self._capture
        if capture.memory is None:
            given = capture.batch.memory_mask
            own = capture.of_stack("encoder") if self._parts.coded else None
            if own is not None and given is None and (own[1].size, own[1].length) == (size, length):
                capture.memory = own
            else:
                mask = given if given is not None and given.shape == (size, length) else None
                batch = Batch(mask=mask, size=size, length=length, other_mask=mask is None)
                capture.memory = picked_of(batch, device, self._parts.sequence_first), batch
        picked = capture.memory[0]
        return picked if (picked.batch, picked.length) == (size, length) else None

    def picked_for(self, states: object) -> Picked | None:
        """The same for the memory itself, (batch, length, d)."""
        if not isinstance(states, torch.Tensor) or states.dim() != 3:
            return None
        size, length = states.shape[:2]
        if self._parts.sequence_first:
            size, length = length, size
        return self.pick(size, length, states.device)

    def reconsider(
        self, module: nn.Module, given: Iterable[object], ran: list[tuple[nn.Module, bool]]
    ) -> None:
        """Asked when an attention begins, while its role is not settled. What was taken for a
        block's second attention, but runs first and is given one kind of states, is the block's
        own."""
        if module not in self.attentions or self._parts.fixed & {"attention", "cross_attention"}:
            return
        layers = (la for la in self._parts.layers if la.cross and la.cross.attention is module)
        layer = next(layers, None)
        states = {id(t) for t in given if isinstance(t, torch.Tensor) and t.dim() == 3}
        if layer is None or len(states) != 1 or any(m is layer.attention for m, _ in ran):
            return
        layer.exchange()
        self._find()
