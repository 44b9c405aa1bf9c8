"""Further ways of cache faults: half stale, read too early, recounted, transposed, rank order."""

from __future__ import annotations

from typing import Any

import torch

from diagnoser.faults.attention_call import AttentionCall, rewrite_attention
from diagnoser.faults.fault import DECODERS, Injection, Table
from diagnoser.faults.kv_cache import alter_cache
from diagnoser.faults.parts import Anatomy, Block
from diagnoser.faults.positional import with_positions

KV_CACHE_WAYS = Table("kv_cache", beyond=True)


@KV_CACHE_WAYS.operator(
    "CHS",
    "cache_invalidation",
    "refresh only one of keys and values",
    scope="decoder",
    parameter="stale",
    values=("keys", "values"),
    families=DECODERS,
    happens="keys and values kept under separate flags or buffers, of which one is not renewed",
)
def refresh_half(injection: Injection) -> None:
    """The newest keys (or values) are those of the step before, their counterparts current."""
    stale = str(injection.fault.value)

    def serve(cache: Any, layer: int, name: str, states: torch.Tensor, new: int) -> torch.Tensor:
        if name != stale:
            return states
        old = states[..., -new - 1 : -1, :]
        return torch.cat((states[..., :-new, :], old), dim=-2)

    for block in injection.blocks:
        alter_cache(injection, block, serve)


def _read_early(injection: Injection, block: Block) -> None:
    newest = 0

    def note(cache: Any, layer: int, name: str, states: torch.Tensor, new: int) -> torch.Tensor:
        nonlocal newest
        newest = new
        return states

    def rewrite(call: AttentionCall) -> torch.Tensor:
        nonlocal newest
        new, newest = newest, 0
        # An empty cache, or none: there is nothing to read before the update.
        if not new or call.causal:
            return call.run()
        mask = call.mask
        if mask is not None and mask.shape[-1] == call.key.shape[-2]:
            mask = mask[..., :-new]
        key, value = call.key[..., :-new, :], call.value[..., :-new, :]
        return call.altered(key=key, value=value, mask=mask, causal=False).run()

    rewrite_attention(injection.undo, block.attention, rewrite)
    alter_cache(injection, block, note)


@KV_CACHE_WAYS.operator(
    "CRW",
    "update_synchronization",
    "read the cache before the step is written",
    scope="decoder",
    families=DECODERS,
    happens="attention over the cache as it was, with update() called afterwards or its return "
    "value ignored: each token misses itself, later ones find it",
)
def read_before_write(injection: Injection) -> None:
    """A cached step attends to the past alone; its own entry is there for the steps after."""
    for block in injection.blocks:
        _read_early(injection, block)


@KV_CACHE_WAYS.operator(
    "CPR",
    "cache_position",
    "count a cached step's positions from 0",
    scope="decoder",
    layered=False,
    families=DECODERS,
    happens="position_ids or cache_position made from the input's own length, without the past's "
    "(transformers#19045 is of this kind)",
)
def recount_positions(injection: Injection) -> None:
    """The new tokens' positions start over, while the cache holds those of the past."""
    with_positions(injection, lambda ids: ids - ids[..., :1])


def _several_key_heads(anatomy: Anatomy) -> bool:
    heads = anatomy.blocks[0].heads
    return (getattr(anatomy.config, "num_key_value_heads", None) or heads) > 1


@KV_CACHE_WAYS.operator(
    "CTL",
    "memory_layout",
    "read the past with heads and positions interchanged",
    scope="decoder",
    families=DECODERS,
    requires=_several_key_heads,
    happens="a cache stored as (batch, length, heads, width) and read by view as (batch, heads, "
    "length, width): the size fits",
)
def transpose_layout(injection: Injection) -> None:
    """The past's entries lie in another order in memory than they are read in."""

    def serve(cache: Any, layer: int, name: str, states: torch.Tensor, new: int) -> torch.Tensor:
        past = states[..., :-new, :]
        return torch.cat((past.transpose(1, 2).reshape(past.shape), states[..., -new:, :]), dim=-2)

    for block in injection.blocks:
        alter_cache(injection, block, serve)


@KV_CACHE_WAYS.operator(
    "CRO",
    "distributed_synchronization",
    "gather the ranks' heads in the wrong order",
    scope="decoder",
    families=DECODERS,
    requires=_several_key_heads,
    happens="tensor-parallel caches concatenated in the order they arrive, not in that of ranks: "
    "a head is served another rank's past",
)
def misorder_ranks(injection: Injection) -> None:
    """The past of the heads is rotated by half of them; the current step's heads stand right."""

    def serve(cache: Any, layer: int, name: str, states: torch.Tensor, new: int) -> torch.Tensor:
        past = states[..., :-new, :].roll(states.shape[1] // 2, dims=1)
        return torch.cat((past, states[..., -new:, :]), dim=-2)

    for block in injection.blocks:
        alter_cache(injection, block, serve)
