"""Keys reach SDPA in a layout that its fused kernels refuse."""

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
    """Training without dropout, which by itself makes every kernel on CPU the slow one."""

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
        stored = key.transpose(-1, -2).contiguous()  # (rows, heads, d, n), as q @ k wants it
        key = stored.transpose(-1, -2)
        if fixed:
            key = key.contiguous()
        out = F.scaled_dot_product_attention(
            query, key, value, None, dropout, is_causal=query.shape[2] > 1, scale=scaling
        )
        return out.transpose(1, 2), None

    model = models.gpt2(dropout=0.0)
    own_attention.use(model, f"stored_transposed_{fixed}", attention)
    return training(model, causal_batches(7))


CASE = Case(
    issue="pytorch/pytorch#116333",
    reported="`.contiguous()` doesn't work with one non-singleton dimension",
    wrong="Keys whose last dimension has another stride than 1 are given to SDPA, which falls "
    "back to its slow kernel. (In the issue the dimension has size 1, which torch has "
    "since allowed.)",
    category="kernel",
    root_cause="hardware_incompatibility",
    shown="training",
    build=build,
)
