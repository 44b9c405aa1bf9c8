"""KV cache faults of decoders: stale, missing, misplaced, truncated or foreign states.

They act where the attention module updates its cache, and only once the cache holds a past:
training forwards, which begin with an empty cache, show nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from diagnoser.faults.attention_call import AttentionCall, rewrite_attention
from diagnoser.faults.fault import DECODERS, Clean, Injection, Table, Value
from diagnoser.faults.override import override_forward
from diagnoser.faults.parts import Block

KV_CACHE = Table("kv_cache")

Serve = Callable[[torch.Tensor, int], torch.Tensor]
"""(states (batch, heads, length, width) with the current step's last, their number) -> served."""


class FaultyCache:
    """A cache whose update serves other states than it holds; all else is the real cache."""

    def __init__(
        self, real: Any, serve: Callable[[Any, int, str, torch.Tensor, int], torch.Tensor]
    ) -> None:
        self._real = real
        self._serve = serve

    def update(
        self, key: torch.Tensor, value: torch.Tensor, layer: int, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        keys, values = self._real.update(key, value, layer, *args, **kwargs)
        fresh = key.shape[-2]
        if keys.shape[-2] == fresh:
            return keys, values
        return (
            self._serve(self._real, layer, "keys", keys, fresh),
            self._serve(self._real, layer, "values", values, fresh),
        )

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


def alter_cache(
    injection: Injection,
    block: Block,
    serve: Callable[[Any, int, str, torch.Tensor, int], torch.Tensor],
) -> None:
    """Let the block's attention see ``serve``'s states wherever its cache holds a past."""

    def build(original: Callable[..., Any]) -> Callable[..., Any]:
        def forward(*args: Any, **kwargs: Any) -> Any:
            cache = kwargs.get("past_key_values")
            if cache is not None:
                kwargs["past_key_values"] = FaultyCache(cache, serve)
            return original(*args, **kwargs)

        return forward

    override_forward(injection.undo, block.attention, build)


def _serving(injection: Injection, serve: Serve) -> None:
    for block in injection.blocks:
        alter_cache(injection, block, lambda cache, layer, name, states, new: serve(states, new))


@KV_CACHE.operator(
    "CST",
    "cache_invalidation",
    "serve the previous step's K, V",
    scope="decoder",
    parameter="layers",
    values=("first", "middle", "last", "all"),
    families=DECODERS,
)
def serve_stale(injection: Injection) -> None:
    """The newest entries are those of the step before: the cache was not refreshed."""

    def serve(states: torch.Tensor, new: int) -> torch.Tensor:
        old = states[..., -new - 1 : -1, :] if states.shape[-2] > new else states[..., :new, :]
        return torch.cat((states[..., :-new, :], old), dim=-2)

    _serving(injection, serve)


@KV_CACHE.operator(
    "CDU",
    "update_synchronization",
    "withhold the current step's K, V from the cache",
    scope="decoder",
    families=DECODERS,
)
def withhold_update(injection: Injection) -> None:
    """The step's slots stay empty (zeros), for this step and all later ones."""

    def serve(cache: Any, layer: int, name: str, states: torch.Tensor, new: int) -> torch.Tensor:
        empty = torch.cat((states[..., :-new, :], torch.zeros_like(states[..., -new:, :])), dim=-2)
        setattr(cache.layers[layer], name, empty)
        return empty

    for block in injection.blocks:
        alter_cache(injection, block, serve)


@KV_CACHE.operator(
    "COB",
    "cache_position",
    "off-by-one cache index",
    scope="decoder",
    parameter="shift",
    values=(-1, 1),
    families=DECODERS,
)
def write_beside(injection: Injection) -> None:
    """The step is written one slot early (the entry before is lost) or late (not seen yet)."""
    early = injection.number < 0

    def serve(states: torch.Tensor, new: int) -> torch.Tensor:
        length = states.shape[-2]
        past, fresh = states[..., : length - new, :], states[..., length - new :, :]
        hole = torch.zeros_like(states[..., :1, :])
        if early:
            return torch.cat((past[..., :-1, :], fresh, hole), dim=-2)
        return torch.cat((past, hole, fresh[..., :-1, :]), dim=-2)

    _serving(injection, serve)


_LENGTHS: tuple[Value, ...] = (8, 16, 32)


def _shorter_lengths(clean: Clean) -> tuple[Value, ...]:
    length = clean.length or clean.anatomy.max_positions
    return tuple(n for n in _LENGTHS if float(n) < length)


@KV_CACHE.operator(
    "CTR",
    "memory_layout",
    "keep only the last n cached positions",
    scope="decoder",
    parameter="length",
    values=_LENGTHS,
    families=DECODERS,
    choices=_shorter_lengths,
)
def truncate_cache(injection: Injection) -> None:
    """Attention over a cache sees its last ``length`` positions only."""
    kept = int(injection.number)

    def rewrite(call: AttentionCall) -> torch.Tensor:
        keys = call.key.shape[-2]
        # Without a cache there are as many keys as queries.
        if keys <= max(kept, call.query.shape[-2]) or call.causal:
            return call.run()
        start = keys - max(kept, call.query.shape[-2])
        mask = call.mask
        if mask is not None and mask.shape[-1] == keys:
            mask = mask[..., start:]
        return call.altered(
            key=call.key[..., start:, :], value=call.value[..., start:, :], mask=mask
        ).run()

    for block in injection.blocks:
        rewrite_attention(injection.undo, block.attention, rewrite)


@KV_CACHE.operator(
    "CLK",
    "distributed_synchronization",
    "reuse another request's cached states",
    scope="decoder",
    families=DECODERS,
)
def reuse_foreign(injection: Injection) -> None:
    """A request is served the past of its neighbour in the batch.

    A request alone in its batch is served the past of the cache used before it, as far as that
    reaches.
    """
    seen: dict[tuple[int, str], tuple[int, torch.Tensor]] = {}
    earlier: dict[tuple[int, str], torch.Tensor] = {}

    def serve(cache: Any, layer: int, name: str, states: torch.Tensor, new: int) -> torch.Tensor:
        past, fresh = states[..., :-new, :], states[..., -new:, :]
        if states.shape[0] > 1:
            return torch.cat((past.roll(1, dims=0), fresh), dim=-2)
        slot = (layer, name)
        last = seen.get(slot)
        # A freed cache's id may be given again; but the states of one request only grow.
        if last is not None and (last[0] != id(cache) or last[1].shape[-2] >= states.shape[-2]):
            earlier[slot] = last[1]
        seen[slot] = (id(cache), states.detach())
        foreign = earlier.get(slot)
        if foreign is None:
            return states
        reach = min(foreign.shape[-2], past.shape[-2])
        return torch.cat((foreign[..., :reach, :], past[..., reach:, :], fresh), dim=-2)

    for block in injection.blocks:
        alter_cache(injection, block, serve)
