"""``jax.nn.dot_product_attention`` ignores ``key_value_seq_lengths`` given alone."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from diagnoser.corpus.realworld import models, own_attention
from diagnoser.corpus.realworld.case import Case, Script
from diagnoser.corpus.realworld.scripts import training
from diagnoser.corpus.realworld.token_rows import masked_batches


def dot_product_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    *,
    scale: float,
    dropout: float,
    query_lengths: torch.Tensor | None,
    key_lengths: torch.Tensor | None,
    either: bool,
) -> torch.Tensor:
    """Attention over rows of the given lengths. ``either``: one kind of lengths is enough."""
    mask = None
    given = [lengths is not None for lengths in (query_lengths, key_lengths)]
    if any(given) if either else all(given):
        keys = torch.arange(key.shape[2])
        assert key_lengths is not None
        mask = (keys < key_lengths[:, None])[:, None, None, :]
    return F.scaled_dot_product_attention(query, key, value, mask, dropout_p=dropout, scale=scale)


def build(fixed: bool) -> Script:
    """A masked language model on padded rows."""

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
        lengths = None if attention_mask is None else attention_mask.sum(dim=1)
        out = dot_product_attention(
            query,
            key,
            value,
            scale=scaling,
            dropout=dropout,
            query_lengths=None,
            key_lengths=lengths,
            either=fixed,
        )
        return out.transpose(1, 2), None

    model = models.bert()
    own_attention.use(model, f"by_lengths_{fixed}", attention)
    return training(model, masked_batches(3))


CASE = Case(
    issue="jax-ml/jax#23349",
    reported="`jax.nn.dot_product_attention` does not respect `key_value_seq_lengths`",
    wrong="The padding mask is built only where lengths of queries and of keys are both given; "
    "given those of keys alone, as is usual, padding is attended to.",
    category="masking",
    root_cause="mask_application",
    shown="training",
    build=build,
)
