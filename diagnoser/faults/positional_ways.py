"""Further ways of positional faults: positions over the batch, mirrored, squeezed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from diagnoser.faults.fault import Clean, Injection, Table, Value
from diagnoser.faults.override import override_forward
from diagnoser.faults.parts import registered
from diagnoser.faults.positional import with_positions

POSITIONAL_WAYS = Table("positional", beyond=True)


@POSITIONAL_WAYS.operator(
    "POB",
    "indexing",
    "count positions over the batch instead of the sequence",
    layered=False,
    happens="`x + pe[:x.size(0)]` on batch-first data: a positional encoding written for "
    "(length, batch, width), as in PyTorch's tutorial (pytorch/tutorials#1547)",
)
def index_by_row(injection: Injection) -> None:
    """All tokens of row b have position b: position tells sequences apart, not tokens."""
    anatomy = injection.anatomy
    last = anatomy.max_positions - 1
    rows = 1

    def note_rows(original: Callable[..., Any]) -> Callable[..., Any]:
        def forward(ids: torch.Tensor) -> torch.Tensor:
            nonlocal rows
            rows = ids.shape[0]
            return original(ids)

        return forward

    def by_row(ids: torch.Tensor) -> torch.Tensor:
        index = torch.arange(rows, device=ids.device, dtype=ids.dtype).clamp(max=last)
        return index.unsqueeze(-1).expand(rows, ids.shape[-1])

    # Position indices are often one row for the whole batch: the tokens tell how many it has.
    override_forward(injection.undo, anatomy.embedding, note_rows)
    with_positions(injection, by_row)


@POSITIONAL_WAYS.operator(
    "PRV",
    "relative_position",
    "measure distances with the wrong sign",
    layered=False,
    happens="query minus key position for key minus query, a rotation with the sine's sign "
    "turned, or positions counted from the sequence's end",
)
def mirror_positions(injection: Injection) -> None:
    """Learned tables are read from the end of the sequence; rotations turn the other way."""
    anatomy = injection.anatomy
    if not anatomy.rotary:

        def mirrored(ids: torch.Tensor) -> torch.Tensor:
            # Cached decoding counts on from the past; a lone token has no other end.
            return ids if ids.shape[-1] < 2 else ids.flip(-1)

        with_positions(injection, mirrored)
        return

    def turned_back(original: Callable[..., Any]) -> Callable[..., Any]:
        def forward(*args: Any, **kwargs: Any) -> tuple[torch.Tensor, torch.Tensor]:
            cos, sin = original(*args, **kwargs)
            return cos, -sin

        return forward

    part: nn.Module = registered(anatomy.positions, anatomy.position_name)
    override_forward(injection.undo, part, turned_back)


_FACTORS = (2, 4, 8)


def _factors(clean: Clean) -> tuple[Value, ...]:
    """Factors that leave at least two different positions."""
    length = clean.length or clean.anatomy.max_positions // 2
    return tuple(factor for factor in _FACTORS if factor < length)


@POSITIONAL_WAYS.operator(
    "PSQ",
    "interpolation",
    "squeeze positions by a factor",
    layered=False,
    parameter="factor",
    values=_FACTORS,
    choices=_factors,
    happens="position interpolation (a rope_scaling factor) kept for a model or a length that "
    "does not need it",
)
def squeeze_positions(injection: Injection) -> None:
    """Position i becomes i / ``factor``: fractions where rotary, whole rows of a learned table."""
    factor = int(injection.number)
    if injection.anatomy.rotary:
        with_positions(injection, lambda ids: ids / factor)
    else:
        with_positions(injection, lambda ids: ids // factor)
