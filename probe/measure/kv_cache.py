"""Key/value cache: short cached decoding against a fresh forward, on rare samples, decoders only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from probe.anatomy import ModelParts, is_linear, weight_of
from probe.attention_call import Recorder, leave
from probe.measure.numbers import mean, relative
from probe.measure.sampled import Values
from probe.schema import Metric
from probe.shards import has_shards
from probe.silenced import Silenced
from probe.stopwatch import Stopwatch

METRICS = (
    Metric(
        "key_error",
        ("kv_cache",),
        "residual",
        "relative",
        "cached keys against a fresh forward's",
        "0",
        source="DEFault++",
        contract=True,
        tolerance=1e-3,
    ),
    Metric(
        "key_similarity",
        ("kv_cache",),
        "statistic",
        "cosine",
        "mean cosine of a cached key and the fresh forward's at its position",
        "1",
        source="DEFault++",
    ),
    Metric(
        "value_error",
        ("kv_cache",),
        "residual",
        "relative",
        "cached values against a fresh forward's",
        "0",
        contract=True,
        tolerance=1e-3,
    ),
    Metric(
        "length_gap",
        ("kv_cache",),
        "signed",
        "log2",
        "positions held by the cache against positions seen",
        "0",
        contract=True,
    ),
    Metric(
        "stale_share",
        ("kv_cache",),
        "share",
        "share",
        "cached positions whose key equals another position's",
        "0",
        contract=True,
        tolerance=1e-3,
    ),
    Metric(
        "rearranged",
        ("kv_cache",),
        "share",
        "share",
        "cached values that another head has at another position, and none at theirs",
        "0",
        contract=True,
    ),
    Metric(
        "last_error",
        ("kv_cache",),
        "residual",
        "relative",
        "key of the newest position against a fresh forward's",
        "0",
        contract=True,
        tolerance=1e-3,
    ),
    Metric(
        "logits_error",
        ("kv_cache",),
        "residual",
        "relative",
        "logits by cached decoding against a fresh forward; the same at every layer",
        "0",
        contract=True,
        tolerance=1e-3,
    ),
    Metric(
        "divergence",
        ("kv_cache",),
        "residual",
        "nats",
        "KL(cached, fresh) of the next-token distribution; the same at every layer",
        "0",
        source="DEFault++",
        contract=True,
        tolerance=1e-5,
    ),
)


_PROMPT = 22
_NEW = 2


@dataclass
class Rows:
    """Two rows of the batch to decode: ids and mask, (2, at most 24), copies."""

    ids: torch.Tensor
    mask: torch.Tensor | None


def keep_rows(ids: torch.Tensor | None, mask: torch.Tensor | None) -> Rows | None:
    """The first tokens of the two rows with least padding. None where too short to decode."""
    if ids is None or ids.shape[0] < 2 or ids.shape[1] < 4 + _NEW:
        return None
    length = min(ids.shape[1], _PROMPT + _NEW)
    if mask is None or mask.shape != ids.shape:
        return Rows(ids[:2, :length].detach().clone(), None)
    real = (mask[:, :length] != 0).sum(dim=1)
    best = torch.argsort(real, descending=True)[:2]
    return Rows(
        ids.index_select(0, best)[:, :length].clone(),
        mask.index_select(0, best)[:, :length].clone(),
    )


def possible(parts: ModelParts) -> bool:
    """A transformers decoder that may cache while training (checkpointing switches caches off).

    Not with weights spread over ranks: a forward of one of them would wait for all.
    """
    return (
        parts.intent.causal is True
        and len(parts.stacks) == 1
        and any(layer.attention is not None for layer in parts.layers)
        and not any(layer.unseen or layer.turn for layer in parts.layers)
        and bool(parts.intent.family)
        and hasattr(parts.root, "base_model")
        and not any(getattr(m, "gradient_checkpointing", False) for m in parts.root.modules())
        and not has_shards(parts.root)
    )


def measure(parts: ModelParts, rows: Rows) -> dict[str, Values]:
    """Decode two tokens with a cache and compare with a fresh forward, by site ``kv_cache@l``.

    Runs the base model four times on two short rows, without gradients, with forked RNG.
    """
    devices = [rows.ids.device] if rows.ids.is_cuda else []
    recorders: dict[int, Recorder] = {}
    handles = []
    for layer in parts.layers:
        if layer.attention is None:
            continue
        recorder = Recorder(None, Stopwatch(), batch=rows.ids.shape[0])
        recorders[layer.index] = recorder
        handles += around(layer.attention, recorder)
    try:
        with (
            torch.no_grad(),
            torch.autocast(rows.ids.device.type, enabled=False),
            torch.random.fork_rng(devices=devices),
            Silenced(rows.ids.device.type),
        ):
            try:
                fresh, cached = _run(parts, rows)
            finally:
                leave(recorders.values())
    finally:
        for handle in handles:
            handle.remove()
    for recorder in recorders.values():
        if recorder.failure is not None:
            raise recorder.failure
    return _compare(parts, recorders, rows, fresh, cached)


def around(module: nn.Module, recorder: Recorder) -> list[Any]:
    """Enter ``recorder`` around each forward of ``module``; returns the handles."""

    def before(module: nn.Module, args: tuple[Any, ...]) -> None:
        recorder.__enter__()

    def after(module: nn.Module, args: tuple[Any, ...], out: Any) -> None:
        leave([recorder])

    return [
        module.register_forward_pre_hook(before),
        module.register_forward_hook(after, always_call=True),
    ]


def _run(parts: ModelParts, rows: Rows) -> tuple[torch.Tensor, torch.Tensor]:
    """Hidden states of the last two positions: fresh, and by cached decoding. (2, 2, width)."""
    base: Any = parts.root.base_model
    ids, mask = rows.ids, rows.mask
    prompt = ids.shape[1] - _NEW

    def shown(upto: int) -> dict[str, torch.Tensor]:
        return {} if mask is None else {"attention_mask": mask[:, :upto]}

    fresh = base(ids, **shown(ids.shape[1]), use_cache=False).last_hidden_state[:, -_NEW:]
    out = base(ids[:, :prompt], **shown(prompt), use_cache=True)
    steps = []
    for at in range(prompt, ids.shape[1]):
        out = base(
            ids[:, at : at + 1],
            **shown(at + 1),
            past_key_values=out.past_key_values,
            use_cache=True,
        )
        steps.append(out.last_hidden_state)
    return fresh, torch.cat(steps, dim=1)


def _compare(
    parts: ModelParts,
    recorders: dict[int, Recorder],
    rows: Rows,
    fresh: torch.Tensor,
    cached: torch.Tensor,
) -> dict[str, Values]:
    whole: Values = {"logits_error": relative(cached, fresh)}
    head = parts.head
    if head is not None and is_linear(head) and weight_of(head).shape[1] == fresh.shape[-1]:
        weight = weight_of(head).detach().float()
        p, q = (torch.log_softmax(t.float() @ weight.t(), dim=-1) for t in (cached, fresh))
        whole["divergence"] = (p.exp() * (p - q)).sum(dim=-1).mean().clamp_min(0.0)
    found: dict[str, Values] = {}
    for at, recorder in recorders.items():
        values = dict(whole)
        if len(recorder.key_values) == 2 + _NEW:
            windows = parts.intent.windows
            window = windows[at] if at < len(windows) else None
            values |= compare_keys(
                recorder.key_values[0], recorder.key_values[-1], rows.mask, window
            )
        found[f"kv_cache@{at}"] = values
    return found


def compare_keys(
    fresh: tuple[torch.Tensor, torch.Tensor],
    cached: tuple[torch.Tensor, torch.Tensor],
    mask: torch.Tensor | None,
    window: int | None,
) -> Values:
    """Metrics of one layer. ``fresh``, ``cached``: keys and values, (r, h, n, d) each; ``mask``
    (r, n), ``window``: how many positions the layer may keep, None for all."""
    (k_fresh, k), (v_fresh, v) = (_same_heads(f, c) for f, c in zip(fresh, cached, strict=True))
    wanted, held = k_fresh.shape[2], k.shape[2]
    # A cache may hold everything, or no more than the layer's window.
    kept = wanted if held == wanted or window is None else min(wanted, window)
    values: Values = {"length_gap": torch.log2(torch.tensor(held / kept)).item()}
    # A shorter cache should at least hold the newest positions.
    shared = min(wanted, held)
    newest, wanted_keys = k[:, :, -shared:], k_fresh[:, :, -shared:]
    # What padding holds matters to nobody; by hand it may depend on how long the row is.
    shown = torch.ones_like(newest[:, :1, :, 0]) if mask is None else mask[:, None, -shared:] != 0
    at_real = shown.float()[..., None]
    values["key_error"] = relative(newest * at_real, wanted_keys * at_real)
    alike = torch.cosine_similarity(newest.float(), wanted_keys.float(), dim=-1)
    values["key_similarity"] = mean(alike, shown.float().expand(alike.shape))
    held_values, fresh_values = v[:, :, -shared:], v_fresh[:, :, -shared:]
    values["value_error"] = relative(held_values * at_real, fresh_values * at_real)
    values["rearranged"] = _rearranged(held_values, fresh_values, shown)
    values["last_error"] = relative(k[:, :, -1], k_fresh[:, :, -1])
    twins = _twins(k)
    # Alike by right are keys that are so without a cache too: of padding that shares a position, of
    # one token twice where no position turns keys.
    twins[:, -shared:] *= 1.0 - _twins(wanted_keys)
    real = torch.ones_like(twins) if mask is None else (mask[:, -held:] != 0).float()
    values["stale_share"] = (twins * real).sum() / real.sum().clamp_min(1.0)
    return values


def _twins(keys: torch.Tensor) -> torch.Tensor:
    """(r, n) 1.0 where a position has the keys (r, h, n, d) of another one."""
    flat = keys.float().transpose(1, 2).flatten(2)
    apart = torch.cdist(flat, flat) / flat.norm(dim=-1).mean().clamp_min(1e-12)
    apart = apart + torch.eye(flat.shape[1], device=keys.device) * 1e3
    return (apart < 1e-6).any(dim=-1).float()


def _rearranged(held: torch.Tensor, fresh: torch.Tensor, shown: torch.Tensor) -> torch.Tensor:
    """Share of what is held (r, h, n, d), at positions ``shown`` (r, 1, n), that is some other
    head's and some other position's."""
    size = held.shape[1:3]
    flat, own = held.float().flatten(1, 2), fresh.float().flatten(1, 2)
    apart = torch.cdist(flat, own) / own.norm(dim=-1).mean().clamp_min(1e-12)
    alike = (apart < 1e-6).unflatten(2, size).unflatten(1, size)
    in_place = alike.diagonal(dim1=2, dim2=4).any(dim=2)
    other_heads = (
        alike & ~torch.eye(size[0], dtype=torch.bool, device=held.device)[:, None, :, None]
    )
    moved = other_heads.any(dim=(3, 4)) & ~in_place
    counts = shown.float().expand(moved.shape)
    return (moved.float() * counts).sum() / counts.sum().clamp_min(1.0)


def _same_heads(one: torch.Tensor, two: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Undo a repetition of key/value heads on one side only."""
    fewer = min(one.shape[1], two.shape[1])
    return one[:, :: one.shape[1] // fewer], two[:, :: two.shape[1] // fewer]
