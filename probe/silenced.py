"""A torch function mode for running a model again: without dropout, and with other lookups.

The modules stay in training mode and the model gets the caller's own arguments: what is changed is
changed where tables are read, so that masks, positions and pooled tokens that a model derives from
its ids stay what they were.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

_SDPA = F.scaled_dot_product_attention
_MULTIHEAD = F.multi_head_attention_forward
_MULTIHEAD_DROPOUT = 10
"""Place of ``dropout_p`` among its arguments; SDPA's is 4."""
_SDPA_DROPOUT = 4
_IDENTITIES = {
    F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.alpha_dropout, F.feature_alpha_dropout,
    torch.dropout, torch.dropout_, torch.alpha_dropout, torch.feature_dropout,
    torch.feature_alpha_dropout,
}  # fmt: skip
_ANGLES = {torch.cos, torch.sin, torch.Tensor.cos, torch.Tensor.sin}


@dataclass(frozen=True)
class OtherTokens:
    """Read other rows of the token table where ``where`` (rows, length) is True.

    ``call``: only in the so-many-th reading of the table; None: in all of that shape.
    """

    table: torch.Tensor
    where: torch.Tensor
    call: int | None = None


@dataclass(frozen=True)
class OtherPositions:
    """Reverse the order of positions: where ``tables`` are read, and, with ``rotary``, in cosines
    and sines. ``lengths``: the sizes a sequence may have."""

    tables: Sequence[torch.Tensor]
    rotary: bool
    lengths: frozenset[int]


Other = OtherTokens | OtherPositions


class Silenced(TorchFunctionMode):
    """Dropout does nothing while this is entered; ``other`` is changed. ``device``: its type.

    ``found``: whether the lookup to be changed was made. ``casts``: whether the model switched
    autocast on by itself.
    """

    def __init__(self, device: str, other: Other | None = None) -> None:
        super().__init__()
        self._device = device
        self._other = other
        self._readings = 0
        self.found = other is None
        self.casts = False

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = dict(kwargs or {})
        self.casts = self.casts or torch.is_autocast_enabled(self._device)
        if func in _IDENTITIES:
            return args[0] if args else kwargs["input"]
        if func is _SDPA:
            args = _without(args, kwargs, _SDPA_DROPOUT)
        elif func is _MULTIHEAD:
            args = _without(args, kwargs, _MULTIHEAD_DROPOUT)
        elif func is F.embedding and self._other is not None:
            return self._look_up(*args, **kwargs)
        result = func(*args, **kwargs)
        if func in _ANGLES and isinstance(self._other, OtherPositions) and self._other.rotary:
            return self._turned(result)
        return result

    def _look_up(self, input: torch.Tensor, weight: torch.Tensor, *rest: Any, **named: Any) -> Any:
        other = self._other
        if isinstance(other, OtherTokens) and weight is other.table:
            reading, self._readings = self._readings, self._readings + 1
            if other.call in (None, reading):
                input = self._replaced(input, other)
        elif isinstance(other, OtherPositions) and any(weight is t for t in other.tables):
            dims = [d for d in range(input.dim()) if input.shape[d] in other.lengths]
            if dims:
                self.found = True
                input = input.flip(dims[-1])
        return F.embedding(input, weight, *rest, **named)

    def _replaced(self, ids: torch.Tensor, other: OtherTokens) -> torch.Tensor:
        where = other.where if ids.shape == other.where.shape else other.where.t()
        if ids.shape != where.shape:
            return ids
        self.found = True
        size = other.table.shape[0]
        return torch.where(where, (ids + max(1, size // 2)) % size, ids)

    def _turned(self, angles: torch.Tensor) -> torch.Tensor:
        assert isinstance(self._other, OtherPositions)
        if angles.dim() < 2 or angles.shape[-2] not in self._other.lengths:
            return angles
        self.found = True
        return angles.flip(-2)


def _without(args: tuple[Any, ...], kwargs: dict[str, Any], place: int) -> tuple[Any, ...]:
    """The arguments with a dropout of 0."""
    if len(args) > place:
        return (*args[:place], 0.0, *args[place + 1 :])
    if "dropout_p" in kwargs:
        kwargs["dropout_p"] = 0.0
    return args
