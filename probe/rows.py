"""Which rows and token positions of a batch a sample looks at, chosen without waiting for a GPU."""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from functools import cached_property

import torch

ROWS = 3
POSITIONS = 16


_PIECE = 4 << 20
_OWN_PAGES = 36 << 20
"""Bytes of an allocation that copies share. On the CPU beyond the largest that glibc takes from its
heap: it has pages of its own, resident once written to, and given back when the sample ends."""


class Shelf:
    """Room for the copies of one sample, in a few large pieces: hundreds of small ones between a
    model's activations keep the allocator from giving that memory out whole again."""

    def __init__(self) -> None:
        self._pieces: dict[tuple[torch.dtype, torch.device], torch.Tensor] = {}

    def room(self, rows: int, width: int, like: torch.Tensor) -> torch.Tensor:
        """(rows, width), of whatever values."""
        key, size = (like.dtype, like.device), rows * width
        left = self._pieces.get(key)
        if left is None or left.numel() < size:
            piece = _OWN_PAGES if like.device.type == "cpu" else _PIECE
            count = max(piece // like.element_size(), size)
            left = torch.empty(count, dtype=like.dtype, device=like.device)
        self._pieces[key] = left[size:]
        return left[:size].view(rows, width)


@dataclass(frozen=True)
class _Copy:
    """What was taken of a tensor, while that is what it was."""

    of: weakref.ref[torch.Tensor]
    version: int
    taken: torch.Tensor | None


@dataclass(frozen=True)
class Picked:
    """``rows`` (r,) and ``positions`` (p,) index tensors on the device; ``valid`` (r, p) weights:
    1.0 at real tokens, 0.0 at padding."""

    rows: torch.Tensor
    positions: torch.Tensor
    valid: torch.Tensor
    batch: int
    length: int
    sequence_first: bool = False
    """Hidden states come as (length, batch, d)."""

    def take_once(self, tensor: torch.Tensor) -> torch.Tensor | None:
        """As :meth:`take`; modules that are given one tensor share one copy of it."""
        if tensor.is_inference():  # what is changed in place does not show
            return self.take(tensor)
        known = self._copies.get(id(tensor))
        if known is None or known.of() is not tensor or known.version != tensor._version:
            known = _Copy(weakref.ref(tensor), tensor._version, self.take(tensor))
            self._copies[id(tensor)] = known
        return known.taken

    def take(self, tensor: torch.Tensor) -> torch.Tensor | None:
        """Hidden states (batch, length, d), or flattened (batch * length, d) -> copy (r, p, d).

        A leading dimension of 1 stands for every row, as does a missing one: (length, d). Pooled
        states (batch, d) give (r, 1, d). None where the shape does not fit.
        """
        tensor = tensor.detach()
        if self.sequence_first and tensor.dim() == 3 and tensor.shape[0] == self.length:
            tensor = tensor.transpose(0, 1)
        if tensor.dim() == 2 and tensor.shape[0] == self.batch and self.length > 1:
            return tensor.index_select(0, self.rows)[:, None, :]
        if tensor.dim() == 2 and tensor.shape[0] == self.batch * self.length:
            tensor = tensor.view(self.batch, self.length, -1)
        elif tensor.dim() == 2 and tensor.shape[0] == self.length:
            tensor = tensor[None]
        if tensor.dim() != 3 or tensor.shape[1] != self.length:
            return None
        if tensor.shape[0] not in (1, self.batch):
            return None
        if tensor.shape[0] == self.batch and tensor.is_contiguous():
            # Whole tokens out of one flat table: half the time of indexing by two dimensions.
            chosen = self._chosen(tensor.view(-1, tensor.shape[2]))
            return chosen.view(*self.valid.shape, -1)
        rows = self.rows if tensor.shape[0] == self.batch else torch.zeros_like(self.rows)
        return tensor[rows[:, None], self.positions[None, :]]

    def take_heads(self, tensor: torch.Tensor) -> torch.Tensor | None:
        """What heads of attention have of their own, (batch, h, length, m) -> copy (r, h, p, m).

        None where the shape does not fit.
        """
        if tensor.dim() != 4 or tensor.shape[0] != self.batch or tensor.shape[2] != self.length:
            return None
        tensor = tensor.detach()
        heads, width = tensor.shape[1], tensor.shape[3]
        tokens = tensor.transpose(1, 2)
        if tokens.is_contiguous():
            chosen = self._chosen(tokens.view(-1, heads * width))
            return chosen.view(*self.valid.shape, heads, width).transpose(1, 2)
        each = torch.arange(heads, device=tensor.device)[None, :, None]
        rows, positions = self.rows[:, None, None], self.positions[None, None, :]
        return tensor[rows, each, positions]

    def _chosen(self, table: torch.Tensor) -> torch.Tensor:
        """The picked tokens' rows of a table of all tokens, (r * p, width)."""
        room = self._shelf.room(len(self._flat), table.shape[1], table)
        return torch.index_select(table, 0, self._flat, out=room)

    @cached_property
    def _shelf(self) -> Shelf:
        return Shelf()

    @cached_property
    def _copies(self) -> dict[int, _Copy]:
        """By id of the tensor."""
        return {}

    @cached_property
    def _flat(self) -> torch.Tensor:
        """Where the picked tokens lie among all tokens of the batch, (r * p,)."""
        return (self.rows[:, None] * self.length + self.positions[None, :]).flatten()

    def take_ids(self, ids: torch.Tensor) -> torch.Tensor | None:
        """Token or position ids (batch or 1, length) -> copy (r, p)."""
        if ids.dim() == 1:
            ids = ids[None]
        elif self.sequence_first and ids.dim() == 2 and ids.shape[0] == self.length:
            ids = ids.t() if ids.shape[1] in (1, self.batch) else ids
        if ids.dim() != 2 or ids.shape[1] != self.length or ids.shape[0] not in (1, self.batch):
            return None
        rows = self.rows if ids.shape[0] == self.batch else torch.zeros_like(self.rows)
        return ids.detach()[rows[:, None], self.positions[None, :]]


def pick(
    batch: int,
    length: int,
    mask: torch.Tensor | None,
    device: torch.device,
    sequence_first: bool = False,
    beside: torch.Tensor | None = None,
) -> Picked:
    """The rows with fewest, most and middling padding, and evenly spaced positions.

    ``mask`` is (batch, length), nonzero at real tokens, or None; ``beside`` (batch, m) the same of
    other states that these attend to, whose padding counts too.
    """
    wanted = min(batch, ROWS)
    places = torch.linspace(0, batch - 1, wanted).long().to(device)
    rows = places
    masks = [m for m in (mask, beside) if m is not None]
    if masks:
        real = torch.stack([(m != 0).sum(dim=1) for m in masks]).sum(dim=0)
        rows = torch.argsort(real).index_select(0, places)
    count = min(length, POSITIONS)
    positions = torch.linspace(0, length - 1, count).long().to(device)
    if mask is None:
        valid = torch.ones(wanted, count, device=device)
    else:
        valid = (mask[rows[:, None], positions[None, :]] != 0).float()
    return Picked(rows, positions, valid, batch, length, sequence_first)
