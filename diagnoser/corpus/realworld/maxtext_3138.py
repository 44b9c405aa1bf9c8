"""Queries are scaled, and the kernel scales them again."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from diagnoser.corpus.realworld import models, own_attention
from diagnoser.corpus.realworld.case import Case, Script
from diagnoser.corpus.realworld.scripts import training
from diagnoser.corpus.realworld.token_rows import causal_batches


def build(fixed: bool) -> Script:
    """Training; the kernel's own scale is what differs."""

    def attention(
        module: nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,
        scaling: float = 1.0,
        dropout: float = 0.0,
        **others: Any,
    ) -> tuple[torch.Tensor, None]:
        query = query * scaling
        key, value = (own_attention.shared_heads(module, states) for states in (key, value))
        out = F.scaled_dot_product_attention(
            query,
            key,
            value,
            None,
            dropout,
            is_causal=query.shape[2] > 1,
            scale=1.0 if fixed else None,
        )
        return out.transpose(1, 2), None

    model = models.llama()
    own_attention.use(model, f"scaled_queries_{fixed}", attention)
    return training(model, causal_batches(17))


CASE = Case(
    issue="AI-Hypercomputer/maxtext#3138",
    reported="MLA with `cudnn_flash_jax` leads to double scaling",
    wrong="The projection scales the queries by 1/sqrt(head size), and so does the kernel, "
    "whose scale is left at its default.",
    category="score",
    root_cause="normalization",
    shown="training",
    build=build,
)
