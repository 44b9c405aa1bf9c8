"""Qwen2 applies its sliding window to the upper layers instead of the lower ones."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from transformers import Qwen2Config, Qwen2ForCausalLM

from diagnoser.corpus.realworld import models, own_attention
from diagnoser.corpus.realworld.case import Case, Script
from diagnoser.corpus.realworld.scripts import training
from diagnoser.corpus.realworld.token_rows import causal_batches

WINDOW, WINDOWED, DEPTH = 8, 1, 4


def build(fixed: bool) -> Script:
    """The lowest layer shall have a window, those above it none, as the config says."""

    def attention(
        module: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,
        scaling: float | None = None,
        dropout: float = 0.0,
        **others: Any,
    ) -> tuple[torch.Tensor, None]:
        below = module.layer_idx < WINDOWED
        places = torch.arange(key.shape[2])
        back = places[-query.shape[2] :, None] - places[None, :]
        seen = (back >= 0) & (back < WINDOW) if below is fixed else back >= 0
        key, value = (own_attention.shared_heads(module, states) for states in (key, value))
        out = F.scaled_dot_product_attention(query, key, value, seen, dropout, scale=scaling)
        return out.transpose(1, 2), None

    model = Qwen2ForCausalLM(
        Qwen2Config(
            **models.rotary_settings(num_hidden_layers=DEPTH),
            use_sliding_window=True,
            sliding_window=WINDOW,
            max_window_layers=WINDOWED,
            layer_types=["sliding_attention"] * WINDOWED + ["full_attention"] * (DEPTH - WINDOWED),
        )
    )
    own_attention.use(model, f"windowed_{fixed}", attention)
    return training(model, causal_batches(6))


CASE = Case(
    issue="huggingface/transformers#35896",
    reported="Qwen2FlashAttention sliding windows are applied to wrong layers",
    wrong="The comparison of the layer's number with max_window_layers is the wrong way round: "
    "layers meant to have a window see everything, the others see the window only.",
    category="variant",
    root_cause="variant_configuration",
    shown="training",
    build=build,
)
