"""The two residual additions of a block, written out so that a fault can change them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch

from diagnoser.faults.override import override_forward
from diagnoser.faults.parts import Block

Build = Callable[[Callable[..., Any]], Callable[..., Any]]
Combine = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""(residual, branch) -> what goes on; residual + branch where healthy."""


def _bert_sublayer(module: Any, combine: Combine) -> Build:
    def forward(hidden_states: torch.Tensor, input_tensor: torch.Tensor) -> torch.Tensor:
        branch = module.dropout(module.dense(hidden_states))
        return module.LayerNorm(combine(input_tensor, branch))

    return lambda _: forward


def _pre_norm_block(
    block: Block, combine: Combine, after_ffn: Combine, names: tuple[str, ...]
) -> Build:
    """GPT-2's and Llama's block; ``names`` are the forward's positional parameters."""

    attention, norms = block.attention, block.norms
    mlp: Any = block.layer.mlp

    def forward(original: Callable[..., Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        if given.pop("encoder_hidden_states", None) is not None:
            # Cross-attention is no part of this fault.
            return original(*args, **kwargs)
        given.pop("encoder_attention_mask", None)
        hidden = given.pop("hidden_states")
        branch, _ = attention(norms[0](hidden), **given)
        hidden = combine(hidden, branch)
        return after_ffn(hidden, mlp(norms[1](hidden)))

    return lambda original: functools.partial(forward, original)


_GPT2_NAMES = (
    "hidden_states",
    "past_key_values",
    "attention_mask",
    "encoder_hidden_states",
    "encoder_attention_mask",
    "use_cache",
)
_LLAMA_NAMES = (
    "hidden_states",
    "attention_mask",
    "position_ids",
    "past_key_values",
    "use_cache",
    "position_embeddings",
)


def combine_residuals(
    undo: ExitStack, block: Block, combine: Combine, after_ffn: Combine | None = None
) -> None:
    """Let both residual additions of a block run ``combine`` instead of a sum.

    ``after_ffn``: the second one runs this instead.
    """
    layer: Any = block.layer
    second = after_ffn or combine
    if hasattr(layer, "intermediate"):
        for module, run in ((layer.attention.output, combine), (layer.output, second)):
            override_forward(undo, module, _bert_sublayer(module, run))
        return
    names = _GPT2_NAMES if hasattr(layer, "attn") else _LLAMA_NAMES
    override_forward(undo, block.layer, _pre_norm_block(block, combine, second, names))
