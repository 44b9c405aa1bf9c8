"""Positional faults: positions left out, shifted or clamped, learned and rotary."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from diagnoser.faults.attention_call import AttentionCall, rewrite_attention
from diagnoser.faults.fault import Clean, Injection, Table, Value
from diagnoser.faults.override import override_forward, shadow_submodule
from diagnoser.faults.parts import registered

POSITIONAL = Table("positional")


@POSITIONAL.operator("POE", "indexing", "leave out positional embeddings", layered=False)
def omit_positions(injection: Injection) -> None:
    """Learned positions contribute zeros; rotary ones rotate by nothing (cos 1, sin 0)."""
    anatomy = injection.anatomy
    part = registered(anatomy.positions, anatomy.position_name)

    def no_table(original: Callable[..., Any]) -> Callable[..., Any]:
        def forward(position_ids: torch.Tensor) -> torch.Tensor:
            return torch.zeros_like(original(position_ids)).detach()

        return forward

    def no_rotation(original: Callable[..., Any]) -> Callable[..., Any]:
        def forward(*args: Any, **kwargs: Any) -> tuple[torch.Tensor, torch.Tensor]:
            cos, sin = original(*args, **kwargs)
            return torch.ones_like(cos), torch.zeros_like(sin)

        return forward

    override_forward(injection.undo, part, no_rotation if anatomy.rotary else no_table)


def with_positions(injection: Injection, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Call the position part with changed indices; the part itself stays right."""
    anatomy = injection.anatomy

    def rotary(real: nn.Module) -> Callable[..., Any]:
        def call(hidden: torch.Tensor, position_ids: torch.Tensor) -> Any:
            return real(hidden, position_ids=change(position_ids))

        return call

    def table(real: nn.Module) -> Callable[..., Any]:
        return lambda position_ids: real(change(position_ids))

    build = rotary if anatomy.rotary else table
    shadow_submodule(injection.undo, anatomy.positions, anatomy.position_name, build)


def _turned(query: torch.Tensor, inverse_frequencies: torch.Tensor, delta: float) -> torch.Tensor:
    """Rotate queries (…, head width) by ``delta`` more positions, half-split as Llama does."""
    angle = delta * inverse_frequencies.to(query.device, torch.float32)
    cos = torch.cat((angle, angle)).cos().to(query.dtype)
    sin = torch.cat((angle, angle)).sin().to(query.dtype)
    first, second = query.chunk(2, dim=-1)
    return query * cos + torch.cat((-second, first), dim=-1) * sin


@POSITIONAL.operator(
    "PSI",
    "relative_position",
    "shift position indices",
    layered=False,
    parameter="delta",
    values=(1, 2, 4),
)
def shift_positions(injection: Injection) -> None:
    """Indices into the table are ``delta`` too high, up to its last row.

    Rotary attention depends on differences of positions only, so a common shift would change
    nothing: there the queries alone are rotated ``delta`` positions too far.
    """
    delta, anatomy = int(injection.number), injection.anatomy
    if not anatomy.rotary:
        last = anatomy.max_positions - 1
        with_positions(injection, lambda ids: (ids + delta).clamp(max=last))
        return
    frequencies: Any = registered(anatomy.positions, anatomy.position_name).inv_freq

    def rewrite(call: AttentionCall) -> torch.Tensor:
        return call.altered(query=_turned(call.query, frequencies, delta)).run()

    for block in anatomy.blocks:
        rewrite_attention(injection.undo, block.attention, rewrite)


_CUTOFFS = (4, 8, 16, 32, 64, 128, 256)


def _cutoffs(clean: Clean) -> tuple[Value, ...]:
    """The three highest cutoffs that leave at least half of the sequence clamped."""
    length = clean.length or clean.anatomy.max_positions // 2
    return tuple(cutoff for cutoff in _CUTOFFS if cutoff <= length // 2)[-3:]


@POSITIONAL.operator(
    "PTL",
    "interpolation",
    "clamp positions at a smaller maximum",
    layered=False,
    parameter="cutoff",
    values=_CUTOFFS,
    choices=_cutoffs,
)
def clamp_positions(injection: Injection) -> None:
    """All positions from ``cutoff`` on share the last index below it."""
    cutoff = int(injection.number)
    with_positions(injection, lambda ids: ids.clamp(max=cutoff - 1))
