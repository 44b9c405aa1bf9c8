"""A causal attention forgets to be causal where no other mask is given."""

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
    """Training on rows without padding, so that no mask is given."""

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
        causal = torch.ones(queries, keys, dtype=torch.bool).tril(keys - queries)
        mask = None if attention_mask is None else attention_mask[:, None, None, :].bool()
        if mask is not None:
            mask = mask & causal
        elif fixed:
            mask = causal
        key, value = (own_attention.shared_heads(module, states) for states in (key, value))
        out = F.scaled_dot_product_attention(query, key, value, mask, dropout, scale=scaling)
        return out.transpose(1, 2), None

    model = models.llama()
    own_attention.use(model, f"mask_and_causal_{fixed}", attention)
    return training(model, causal_batches(10))


CASE = Case(
    issue="facebookresearch/xformers#103",
    reported="Causal mask is skipped if no att_mask is passed",
    wrong="The triangle is only ever combined with a mask that was given; without one every "
    "token sees the tokens that it shall predict.",
    category="masking",
    root_cause="mask_application",
    shown="training",
    build=build,
)
