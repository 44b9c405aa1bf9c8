"""Faults that show from outside: for each counterfactual contract some that break it.

A fault is a function that changes a freshly made model for good. Those of attention act in every
layer unless they say otherwise.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode

from probe.anatomy import ModelParts

KERNEL = F.scaled_dot_product_attention
PACKED = F.multi_head_attention_forward
SOFTMAX = (torch.softmax, torch.Tensor.softmax, F.softmax)


class _Calls(TorchFunctionMode):
    """Passes the attention calls through ``change(named arguments) -> named arguments``."""

    def __init__(self, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        super().__init__()
        self.change = change

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func is PACKED:
            kwargs = self.change(kwargs | {"packed": args[0]})
            kwargs.pop("packed", None)
        elif func is KERNEL:
            names = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")
            kwargs = self.change(dict(zip(names, args, strict=False)) | kwargs)
            args = ()
        elif func in SOFTMAX:
            (scores, *rest) = args
            args = (self.change({"scores": scores})["scores"], *rest)
        return func(*args, **kwargs)


def _around(module: nn.Module, change) -> None:
    original = module.forward

    def forward(*args, **kwargs):
        with _Calls(change):
            return original(*args, **kwargs)

    module.forward = forward


def _shown(named: dict[str, Any]) -> dict[str, Any]:
    if "scores" in named:
        return {"scores": named["scores"].clamp_min(-1.0)}
    gone = {"attn_mask": None, "is_causal": False}
    return named | gone | ({"key_padding_mask": None} if "packed" in named else {})


def mask_dropped(parts: ModelParts) -> None:
    """Everything is seen, in one layer."""
    for stack in parts.stacks:
        _around(stack.layers[1].attention, _shown)


def padding_shown(parts: ModelParts) -> None:
    """Of the mask only causality is left."""

    def changed(causal, named):
        if "packed" in named:
            return named | {"key_padding_mask": None}
        return named | {"attn_mask": None, "is_causal": causal}

    for stack in parts.stacks:
        for layer in stack.layers:
            _around(layer.attention, partial(changed, bool(stack.causal)))


def cross_row_leak(parts: ModelParts) -> None:
    """A norm over the batch, as of one axis too many."""
    along = 1 if parts.sequence_first else 0

    def centred(module, args, out):
        first = out[0] if isinstance(out, tuple) else out
        first = first - 0.5 * first.mean(dim=along, keepdim=True)
        return (first, *out[1:]) if isinstance(out, tuple) else first

    parts.layers[1].block.register_forward_hook(centred)


def first_rows_mask(parts: ModelParts) -> None:
    """The first row's mask is broadcast over the batch."""

    def change(named):
        mask = named.get("attn_mask")
        return named | ({"attn_mask": mask[:1]} if mask is not None and mask.dim() == 4 else {})

    for layer in parts.layers:
        _around(layer.attention, change)


def positions_zeroed(parts: ModelParts) -> None:
    if parts.position_embedding is not None:
        parts.position_embedding.register_forward_hook(lambda m, a, out: torch.zeros_like(out))
        return
    for layer in parts.layers:
        if layer.relative_bias is not None:
            layer.relative_bias.register_forward_hook(lambda m, a, out: torch.zeros_like(out))
    for name, module in parts.root.named_modules():
        if name.endswith("rotary_emb"):
            module.register_forward_hook(
                lambda m, a, out: (torch.ones_like(out[0]), torch.zeros_like(out[1]))
            )


def positions_from_the_end(parts: ModelParts) -> None:
    """Counted backwards, so that they depend on the padding."""
    table = parts.position_embedding
    table.register_forward_pre_hook(lambda m, args: (args[0].flip(-1), *args[1:]))


def attention_zeroed(parts: ModelParts) -> None:
    for part in parts.attentions:
        if part.attention is not None:
            part.attention.register_forward_hook(_nothing)


def _nothing(module, args, out):
    if isinstance(out, tuple):
        return (torch.zeros_like(out[0]), *out[1:])
    return torch.zeros_like(out)


_BY_POSITION_TABLE = (
    "bert", "gpt2", "distilbert", "roberta", "torch encoder",
    "torch encoder, pre-norm, sequence first", "multihead attention", "hand-written, SDPA",
    "hand-written, softmax",
)  # fmt: skip
_WITH_POSITIONS = (*_BY_POSITION_TABLE, "llama", "mistral", "qwen3", "t5")
_PADDED = (
    "bert", "distilbert", "roberta", "t5", "torch encoder",
    "torch encoder, pre-norm, sequence first",
)  # fmt: skip
_DECODERS = ("gpt2", "llama", "mistral", "qwen3")
_CAUSAL = (
    *_DECODERS, "t5", "multihead attention", "hand-written, SDPA",
    "hand-written, softmax",
)  # fmt: skip

MADE_FOR: dict[str, tuple[tuple[Callable[[ModelParts], None], tuple[str, ...]], ...]] = {
    # Padding on the right of a causal model is hidden by causality as well.
    "padding_effect": ((mask_dropped, (*_PADDED, *_DECODERS)), (padding_shown, _PADDED)),
    "future_effect": ((mask_dropped, _CAUSAL),),
    "packing_effect": ((padding_shown, _DECODERS),),
    "batch_effect": ((cross_row_leak, _WITH_POSITIONS), (first_rows_mask, ("bert", "gpt2"))),
    "trim_effect": (
        (padding_shown, _PADDED),
        (mask_dropped, _DECODERS),
        (positions_from_the_end, ("bert", "gpt2", "distilbert", "torch encoder")),
    ),
    "position_missing": ((positions_zeroed, _WITH_POSITIONS),),
    "context_missing": ((attention_zeroed, _WITH_POSITIONS),),
}
"""Metric -> faults, each with the families it can be made in."""
