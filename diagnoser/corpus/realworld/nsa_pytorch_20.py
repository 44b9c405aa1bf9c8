"""Sparse attention that, with a cache, attends to everything but the newest token."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers import MistralConfig, MistralForCausalLM

from diagnoser.corpus.realworld import models, own_attention
from diagnoser.corpus.realworld.case import Case, Script
from diagnoser.corpus.realworld.scripts import training
from diagnoser.corpus.realworld.token_rows import causal_batches

WINDOW = 12


def build(fixed: bool) -> Script:
    """Training; the fault waits in the branch for one new token."""

    def attention(
        module: nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,
        scaling: float | None = None,
        dropout: float = 0.0,
        **others: Any,
    ) -> tuple[torch.Tensor, None]:
        key, value = (own_attention.shared_heads(module, states) for states in (key, value))
        if query.shape[2] == 1 and key.shape[2] > 1:
            last = key.shape[2] if fixed else key.shape[2] - 1
            seen = slice(max(0, last - WINDOW), last)
            key, value, mask = key[:, :, seen], value[:, :, seen], None
        else:
            mask = attention_mask
        out = F.scaled_dot_product_attention(query, key, value, mask, dropout, scale=scaling)
        return out.transpose(1, 2), None

    config = MistralConfig(**models.rotary_settings(), sliding_window=WINDOW)
    model = MistralForCausalLM(config)
    own_attention.use(model, f"local_blocks_{fixed}", attention, whole_mask=True)
    return training(model, causal_batches(5))


CASE = Case(
    issue="lucidrains/native-sparse-attention-pytorch#20",
    reported="Model forward with cache giving incorrect logits",
    wrong="The branch for cached decoding takes its keys and values before the newest token's "
    "are among them.",
    category="kv_cache",
    root_cause="update_synchronization",
    shown="training",
    build=build,
)
