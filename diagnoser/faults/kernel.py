"""Kernel faults: another kernel, dropout, dtype or memory path than the one asked for."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from diagnoser.faults.attention_call import AttentionCall, rewrite_attention
from diagnoser.faults.fault import Clean, Injection, Table, Value

KERNEL = Table("kernel")


@KERNEL.operator("KSB", "silent_fallback", "force a slower attention backend silently")
def fall_back(injection: Injection) -> None:
    """Separate products and softmax instead of the fused call; the result is the same."""
    for block in injection.blocks:
        rewrite_attention(injection.undo, block.attention, AttentionCall.by_hand)


_DROPOUTS: tuple[Value, ...] = (0.1, 0.3, 0.5)


def configured_dropout(config: object) -> float:
    """Attention dropout the config asks for; the name differs between families."""
    for name in ("attention_probs_dropout_prob", "attn_pdrop", "attention_dropout"):
        if hasattr(config, name):
            return float(getattr(config, name))
    return 0.0


def _other_dropouts(clean: Clean) -> tuple[Value, ...]:
    asked = configured_dropout(clean.anatomy.config)
    return tuple(p for p in _DROPOUTS if p != asked)


@KERNEL.operator(
    "KMD",
    "feature_constraints",
    "dropout in the kernel differs from the configured one",
    parameter="p_kern",
    values=_DROPOUTS,
    choices=_other_dropouts,
)
def wrong_dropout(injection: Injection) -> None:
    """The kernel gets its own dropout_p, in eval mode as well: SDPA knows no such mode."""
    p = injection.number

    def rewrite(call: AttentionCall) -> torch.Tensor:
        return call.altered(dropout=p).run()

    for block in injection.blocks:
        rewrite_attention(injection.undo, block.attention, rewrite)


def _as_double(call: AttentionCall) -> torch.Tensor:
    mask = call.mask
    if mask is not None and mask.is_floating_point():
        mask = mask.double()
    wide = call.altered(
        query=call.query.double(), key=call.key.double(), value=call.value.double(), mask=mask
    )
    # CPUs have a fused float64 kernel, accelerators have none: both end in the math one.
    with sdpa_kernel(SDPBackend.MATH):
        return wide.run().to(call.query.dtype)


def _strided(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.transpose(-1, -2).contiguous().transpose(-1, -2)


def _column_major(call: AttentionCall) -> torch.Tensor:
    return call.altered(
        query=_strided(call.query), key=_strided(call.key), value=_strided(call.value)
    ).run()


@KERNEL.operator(
    "KFT",
    "hardware_incompatibility",
    "trigger a fallback by dtype or layout",
    parameter="trigger",
    values=("dtype", "layout"),
)
def trigger_fallback(injection: Injection) -> None:
    """Inputs that fused kernels refuse: float64, or a last dimension that is not contiguous."""
    rewrite = {"dtype": _as_double, "layout": _column_major}[str(injection.fault.value)]
    for block in injection.blocks:
        rewrite_attention(injection.undo, block.attention, rewrite)


def _rounded_to_tf32(tensor: torch.Tensor) -> torch.Tensor:
    """Keep 10 of 23 mantissa bits, as tensor cores do with float32 inputs."""
    bits = tensor.detach().float().contiguous().view(torch.int32)
    rounded = ((bits + 0x1000) & ~0x1FFF).view(torch.float32).to(tensor.dtype)
    # Straight-through: rounding has no useful derivative.
    return tensor + (rounded - tensor.detach())


def _cast_to(dtype: torch.dtype) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda tensor: tensor.to(dtype)


@KERNEL.operator(
    "KRP",
    "numerical_precision",
    "accumulate at reduced precision",
    parameter="precision",
    values=("fp16", "bf16", "tf32"),
)
def reduce_precision(injection: Injection) -> None:
    """The kernel runs in float16 or bfloat16, or on inputs rounded to TF32."""
    lower = {
        "fp16": _cast_to(torch.float16),
        "bf16": _cast_to(torch.bfloat16),
        "tf32": _rounded_to_tf32,
    }[str(injection.fault.value)]

    def rewrite(call: AttentionCall) -> torch.Tensor:
        query, key, value = lower(call.query), lower(call.key), lower(call.value)
        mask = call.mask
        if mask is not None and mask.is_floating_point():
            mask = mask.clamp(min=torch.finfo(query.dtype).min).to(query.dtype)
        result = call.altered(query=query, key=key, value=value, mask=mask).run()
        return result.to(call.query.dtype)

    for block in injection.blocks:
        rewrite_attention(injection.undo, block.attention, rewrite)


CHUNKS = 4


@KERNEL.operator("KMC", "kernel_memory", "chunked low-memory path")
def chunk_queries(injection: Injection) -> None:
    """One kernel call per chunk of queries: less memory, more time, the same result."""

    def rewrite(call: AttentionCall) -> torch.Tensor:
        rows = call.query.shape[-2]
        visible = call.mask if call.mask is not None else call.visible()
        results = []
        for part in torch.arange(rows).chunk(min(CHUNKS, rows)):
            span = slice(int(part[0]), int(part[-1]) + 1)
            mask = visible
            if mask is not None and mask.shape[-2] != 1:
                mask = mask[..., span, :]
            chunk = call.altered(query=call.query[..., span, :], mask=mask, causal=False)
            results.append(chunk.run())
        return torch.cat(results, dim=-2)

    for block in injection.blocks:
        rewrite_attention(injection.undo, block.attention, rewrite)
