"""One evaluation switches the dropout of attention off for the rest of the training."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from diagnoser.corpus.realworld import models, own_attention
from diagnoser.corpus.realworld.case import Case, Script
from diagnoser.corpus.realworld.scripts import STEPS, training
from diagnoser.corpus.realworld.token_rows import causal_batches

EVERY = 8


class FlashSelfAttention:
    """Keeps its own rate. ``forgets``: evaluation sets it to 0, and nothing sets it back."""

    def __init__(self, dropout: float, forgets: bool) -> None:
        self.dropout_p, self._forgets = dropout, forgets

    def __call__(
        self,
        module: nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,
        scaling: float | None = None,
        **others: Any,
    ) -> tuple[torch.Tensor, None]:
        rate = self.dropout_p if module.training else 0.0
        if self._forgets:
            self.dropout_p = rate
        out = F.scaled_dot_product_attention(
            query, key, value, None, rate, is_causal=query.shape[2] > 1, scale=scaling
        )
        return out.transpose(1, 2), None


def build(fixed: bool) -> Script:
    """Training with an evaluation every few steps."""
    model = models.gpt2()
    attention = FlashSelfAttention(model.config.attn_pdrop, forgets=not fixed)
    own_attention.use(model, f"own_dropout_{fixed}", attention)
    held_out = causal_batches(15)
    script = training(model, causal_batches(16), steps=STEPS + EVERY)
    plain, done = script.step, 0

    def step() -> torch.Tensor:
        nonlocal done
        done += 1
        if done % EVERY == 0:
            model.eval()
            with torch.no_grad():
                model(**next(held_out))
            model.train()
        return plain()

    script.step = step
    return script


CASE = Case(
    issue="NVIDIA/Megatron-LM#411",
    reported="When eval, dropout_p turns to 0 forever",
    wrong="The rate is set to 0 in evaluation and kept: from the first evaluation on, attention"
    " trains without the dropout that the config asks for.",
    category="kernel",
    root_cause="feature_constraints",
    shown="training",
    build=build,
)
