"""Further ways of kernel faults: forced backend, lost option, odd widths, few bits, bad merge."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from diagnoser.faults.attention_call import AttentionCall, hide_where_not, rewrite_attention
from diagnoser.faults.fault import Injection, Table
from diagnoser.faults.kernel import configured_dropout
from diagnoser.faults.override import override_forward
from diagnoser.faults.parts import Anatomy

KERNEL_WAYS = Table("kernel", beyond=True)


@KERNEL_WAYS.operator(
    "KFM",
    "silent_fallback",
    "a forced math backend stays switched on",
    happens="`sdpa_kernel(SDPBackend.MATH)` or `enable_flash_sdp(False)` left from debugging; the "
    "config still asks for the fused kernel",
)
def force_math(injection: Injection) -> None:
    """The fused call is made, but only its slow reference backend is allowed."""

    def build(original: Callable[..., Any]) -> Callable[..., Any]:
        def forward(*args: Any, **kwargs: Any) -> Any:
            with sdpa_kernel(SDPBackend.MATH):
                return original(*args, **kwargs)

        return forward

    for block in injection.blocks:
        override_forward(injection.undo, block.attention, build)


def _asks_for_dropout(anatomy: Anatomy) -> bool:
    return configured_dropout(anatomy.config) > 0


@KERNEL_WAYS.operator(
    "KND",
    "feature_constraints",
    "configured dropout silently not applied",
    requires=_asks_for_dropout,
    happens="a kernel without dropout support that drops the argument instead of refusing it",
)
def ignore_dropout(injection: Injection) -> None:
    """The config asks for attention dropout; the kernel is called with none, in training too."""

    def rewrite(call: AttentionCall) -> torch.Tensor:
        return call.altered(dropout=0.0).run()

    for block in injection.blocks:
        rewrite_attention(injection.undo, block.attention, rewrite)


SURPLUS = 8


@KERNEL_WAYS.operator(
    "KHD",
    "hardware_incompatibility",
    "value heads wider than query and key heads",
    happens="heads padded to unequal widths: fused kernels want one width for q, k and v and "
    "fall back (vllm-project/vllm#12656; DeepSeek's 192 and 128)",
)
def widen_values(injection: Injection) -> None:
    """Values get columns of zeros, cut off again after a call that no fused kernel takes."""

    def rewrite(call: AttentionCall) -> torch.Tensor:
        width = call.value.shape[-1]
        return call.altered(value=F.pad(call.value, (0, SURPLUS))).run()[..., :width]

    for block in injection.blocks:
        rewrite_attention(injection.undo, block.attention, rewrite)


def _quantised(tensor: torch.Tensor, levels: int) -> torch.Tensor:
    data = tensor.detach()
    step = data.abs().amax(dim=(-2, -1), keepdim=True).clamp(min=1e-12) / levels
    # Straight-through: rounding has no useful derivative.
    return tensor + (torch.round(data / step) * step - data)


@KERNEL_WAYS.operator(
    "KQT",
    "numerical_precision",
    "quantise keys and values to a few bits",
    parameter="bits",
    values=(4, 8),
    happens="an integer attention kernel, or a quantised cache, switched on for a model that was "
    "neither trained nor calibrated for it",
)
def quantise_states(injection: Injection) -> None:
    """Keys and values are rounded to signed integers of ``bits`` bits, one scale a head."""
    levels = 2 ** (int(injection.number) - 1) - 1

    def rewrite(call: AttentionCall) -> torch.Tensor:
        key, value = _quantised(call.key, levels), _quantised(call.value, levels)
        return call.altered(key=key, value=value).run()

    for block in injection.blocks:
        rewrite_attention(injection.undo, block.attention, rewrite)


@KERNEL_WAYS.operator(
    "KCM",
    "kernel_memory",
    "chunked keys merged by a plain mean",
    parameter="chunks",
    values=(2, 4),
    happens="chunked or ring attention that averages the chunks' outputs and forgets to weigh "
    "them by their softmax sums",
)
def merge_unweighted(injection: Injection) -> None:
    """One kernel call per chunk of keys; a query's result is the mean over chunks it can see."""
    chunks = int(injection.number)

    def rewrite(call: AttentionCall) -> torch.Tensor:
        visible = call.visible()
        if visible is None:
            shape = (call.query.shape[-2], call.key.shape[-2])
            visible = torch.ones(shape, dtype=torch.bool, device=call.query.device)
        columns = call.key.shape[-2]
        visible = visible.expand(*visible.shape[:-1], columns)
        total: torch.Tensor | float = 0.0
        count: torch.Tensor | float = 0.0
        for part in torch.arange(columns).chunk(min(chunks, columns)):
            span = slice(int(part[0]), int(part[-1]) + 1)
            seen = visible[..., span]
            piece = call.altered(
                key=call.key[..., span, :],
                value=call.value[..., span, :],
                mask=hide_where_not(seen, call.query.dtype),
                causal=False,
            )
            counts = seen.any(dim=-1, keepdim=True).to(call.query.dtype)
            total = total + counts * piece.run()
            count = count + counts
        assert isinstance(total, torch.Tensor) and isinstance(count, torch.Tensor)
        return total / count.clamp(min=1.0)

    for block in injection.blocks:
        rewrite_attention(injection.undo, block.attention, rewrite)
