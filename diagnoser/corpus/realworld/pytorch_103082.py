"""``is_causal`` of SDPA aligns its triangle with the first key, not with the last."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from diagnoser.corpus.realworld import models, own_attention
from diagnoser.corpus.realworld.case import Case, Script
from diagnoser.corpus.realworld.scripts import generating


def build(fixed: bool) -> Script:
    """Generation with a cache; prompts have no padding, so that the function masks by itself."""

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
        queries, keys = query.shape[2], key.shape[2]
        if fixed:
            seen = torch.ones(queries, keys, dtype=torch.bool).tril(keys - queries)
            out = F.scaled_dot_product_attention(query, key, value, seen, dropout, scale=scaling)
        else:
            out = F.scaled_dot_product_attention(
                query, key, value, None, dropout, is_causal=True, scale=scaling
            )
        return out.transpose(1, 2), None

    model = models.gpt2()
    own_attention.use(model, f"causal_by_flag_{fixed}", attention)
    return generating(model)


CASE = Case(
    issue="pytorch/pytorch#103082",
    reported="Ambiguity in the causal mask of `scaled_dot_product_attention`",
    wrong="`is_causal=True` is kept while decoding with a cache: the one new query is taken for"
    " the first position and sees the first key only.",
    category="masking",
    root_cause="dynamic_mask",
    shown="generating",
    build=build,
)
