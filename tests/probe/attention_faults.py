"""Faults of projections, scores, the attention kernel and the cache."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from fault_target import (
    Faults,
    Inapplicable,
    Replaced,
    Target,
    in_kernel,
    into,
    out_of,
    rewrite,
    rows_of,
)


def scale_doubled(at: Target) -> None:
    def change(kind, named):
        if kind == "softmax":
            return named | {"input": named["input"] * 2.0}
        if kind == "packed":
            raise Inapplicable
        return named | {"query": named["query"] * 2.0}

    if at.layer.packed is not None:
        raise Inapplicable
    rewrite(at, change)


def _by_hand(at: Target) -> None:
    if not getattr(at.layer.attention, "by_hand", False):
        raise Inapplicable


def scores_dropped(at: Target) -> None:
    _by_hand(at)

    def change(kind, named):
        if kind != "softmax":
            return named
        scores = named["input"].clone()
        some = scores[..., ::3, ::4]
        scores[..., ::3, ::4] = torch.where(some > -1e4, 0.0, some)
        return named | {"input": scores}

    rewrite(at, change)


def softmax_over_queries(at: Target) -> None:
    _by_hand(at)

    def change(kind, named):
        if kind != "softmax":
            return named
        return Replaced(lambda func: func(named["input"], dim=-2))

    rewrite(at, change)


def scores_in_16_bits(at: Target) -> None:
    _by_hand(at)

    def change(kind, named):
        if kind != "softmax":
            return named
        half, rest = named["input"].half(), {k: v for k, v in named.items() if k != "input"}
        return Replaced(lambda func: func(half, **rest).float())

    rewrite(at, change)


def kernel_in_16_bits(at: Target) -> None:
    def change(named):
        half = {name: named[name].bfloat16() for name in ("query", "key", "value")}
        mask = named.get("attn_mask")
        if mask is not None and mask.is_floating_point():
            half["attn_mask"] = mask.bfloat16()
        return Replaced(lambda func: func(**(named | half)).to(named["query"].dtype))

    in_kernel(at, change)


def kernel_by_hand(at: Target) -> None:
    def change(named):
        q, k, v = named["query"], named["key"], named["value"]
        k, v = (t.repeat_interleave(q.shape[1] // t.shape[1], dim=1) for t in (k, v))
        mask = named.get("attn_mask")

        def result(func):
            scale = named.get("scale")
            scores = torch.matmul(q, k.transpose(-1, -2)) * (
                q.shape[-1] ** -0.5 if scale is None else scale
            )
            if named.get("is_causal"):
                n = scores.shape[-1]
                scores = scores.masked_fill(torch.ones(n, n).triu(1).bool(), float("-inf"))
            if mask is not None and mask.dtype == torch.bool:
                scores = scores.masked_fill(~mask, -1e9)
            elif mask is not None:
                scores = scores + mask
            return torch.matmul(torch.softmax(scores, dim=-1), v)

        return Replaced(result)

    in_kernel(at, change)


def kernel_twice(at: Target) -> None:
    def change(named):
        return Replaced(lambda func: 0.5 * (func(**named) + func(**named)))

    in_kernel(at, change)


def keys_strided(at: Target) -> None:
    def change(named):
        key = named["key"].transpose(-1, -2).contiguous().transpose(-1, -2)
        return named | {"key": key}

    in_kernel(at, change)


def attention_dropout(at: Target) -> None:
    def change(kind, named):
        return named if kind == "softmax" else named | {"dropout_p": 0.4}

    if getattr(at.layer.attention, "by_hand", False):
        at.layer.attention.attn_dropout.p = 0.4
        return
    rewrite(at, change)


def output_changed(at: Target) -> None:
    def change(named):
        return Replaced(lambda func: func(**named) * 1.1)

    if at.layer.packed is not None:
        out_of(at.layer.attention, lambda out: out * 1.1)
        return
    if getattr(at.layer.attention, "by_hand", False):
        into(at.layer.attention_out, lambda x: x * 1.1)
        return
    in_kernel(at, change)


def kernel_wrong(at: Target) -> None:
    """The kernel itself gives something else than its arguments say."""
    given = at.layer.attention
    original = given.forward

    def forward(*args, **kwargs):
        kept = F.scaled_dot_product_attention, torch.bmm

        def wrong(*a, **k):
            return kept[0](*a, **k).roll(1, dims=-1)

        def wrong_sum(*a, **k):
            out = kept[1](*a, **k)
            return out.roll(1, dims=-1) if out.shape[-1] == 8 else out

        F.scaled_dot_product_attention, torch.bmm = wrong, wrong_sum
        try:
            return original(*args, **kwargs)
        finally:
            F.scaled_dot_product_attention, torch.bmm = kept

    if at.layer.packed is None:
        raise Inapplicable
    given.forward = forward


def values_changed(at: Target) -> None:
    in_kernel(at, lambda named: named | {"value": named["value"] * 1.2})


def keys_changed(at: Target) -> None:
    in_kernel(at, lambda named: named | {"key": named["key"].roll(1, dims=1) * 1.3})


def queries_changed(at: Target) -> None:
    in_kernel(at, lambda named: named | {"query": named["query"].roll(1, dims=1) * 1.3})


def swapped(at: Target) -> None:
    def change(named):
        if named["query"].shape != named["key"].shape:
            raise Inapplicable
        return named | {"query": named["key"], "key": named["query"]}

    if at.parts.intent.kv_heads not in (None, at.parts.intent.heads):
        raise Inapplicable
    in_kernel(at, change)


def tied_heads(at: Target) -> None:
    for rows in rows_of(at, "query"):
        size = at.parts.head_dim_seen
        rows[size : 2 * size] = rows[:size]


def dead_head(at: Target) -> None:
    for rows in rows_of(at, "value"):
        rows[: at.parts.head_dim_seen] = 0.0


def query_zero(at: Target) -> None:
    rows_of(at, "query")[0].zero_()


def query_small(at: Target) -> None:
    rows_of(at, "query")[0].mul_(0.1)


def cached_keys_changed(at: Target) -> None:
    def change(named):
        if named["query"].shape[-2] < named["key"].shape[-2]:
            key, value = named["key"].clone(), named["value"].clone()
            key[:, :, 1], value[:, :, 1] = 0.5, 0.5
            key[:, :, -1] *= 1.5
            return named | {"key": key, "value": value}
        return named

    in_kernel(at, change)


def cache_laid_out_anew(at: Target) -> None:
    def change(named):
        if named["query"].shape[-2] < named["key"].shape[-2]:
            named = named | {
                name: named[name].transpose(1, 2).reshape(named[name].shape)
                for name in ("key", "value")
            }
        return named

    in_kernel(at, change)


MADE_FOR: Faults = {
    "qkv/q_error": (queries_changed,),
    "qkv/k_error": (keys_changed,),
    "qkv/v_error": (values_changed,),
    "qkv/swapped": (swapped,),
    "qkv/tied_heads": (tied_heads,),
    "qkv/tied_outputs": (tied_heads,),
    "qkv/zero_weights": (query_zero,),
    "qkv/weight_gap": (query_small,),
    "score/scale_ratio": (scale_doubled,),
    "score/input_error": (scores_dropped,),
    "score/dropped": (scores_dropped,),
    "score/precision_gap": (scores_in_16_bits,),
    "attention/dead_heads": (dead_head,),
    "attention/reference_error": (kernel_wrong,),
    "attention/row_sum_error": (softmax_over_queries,),
    "attention/reaches_output": (output_changed,),
    "attention/dropout_gap": (attention_dropout,),
    "attention/kernel_changed": (kernel_by_hand,),
    "attention/kernel_calls": (kernel_twice,),
    "attention/precision_gap": (kernel_in_16_bits,),
    "attention/strided_inputs": (keys_strided,),
    "kv_cache/key_error": (cached_keys_changed,),
    "kv_cache/value_error": (cached_keys_changed,),
    "kv_cache/rearranged": (cache_laid_out_anew,),
    "kv_cache/last_error": (cached_keys_changed,),
    "kv_cache/logits_error": (cached_keys_changed,),
}
