"""Heads of a T5 encoder are pruned; the bias of relative positions keeps all of them."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import T5Config, T5ForConditionalGeneration
from transformers.models.t5.modeling_t5 import T5Attention

from diagnoser.corpus.realworld.case import Case, Script
from diagnoser.corpus.realworld.models import HEADS, LAYERS, WIDTH
from diagnoser.corpus.realworld.scripts import STEPS, training
from diagnoser.corpus.realworld.token_rows import BEGIN, PAD, VOCABULARY, causal_batches

PRUNED = {0: 1, 1: 3}
"""By layer the head that goes."""


class BiasOfKeptHeads(T5Attention):
    """Takes from the bias that all layers share what its own heads need."""

    kept: torch.Tensor | None = None

    def forward(
        self,
        hidden_states: torch.Tensor,
        mask: torch.Tensor | None = None,
        key_value_states: torch.Tensor | None = None,
        position_bias: torch.Tensor | None = None,
        past_key_values: Any = None,
        **others: Any,
    ) -> Any:
        if position_bias is None:
            length = hidden_states.shape[1]
            position_bias = self.compute_bias(length, length)
        own = position_bias if self.kept is None else position_bias[:, self.kept]
        out, _, weights = super().forward(
            hidden_states, mask, key_value_states, own, past_key_values, **others
        )
        return out, position_bias, weights


def prune(attention: T5Attention, head: int) -> None:
    """Take one head out of the four projections, as transformers' ``prune_heads`` did."""
    size = attention.key_value_proj_dim
    kept = torch.tensor([at for at in range(attention.n_heads) if at != head])
    rows = (kept[:, None] * size + torch.arange(size)).flatten()
    for name in ("q", "k", "v", "o"):
        linear: nn.Linear = getattr(attention, name)
        dim = 1 if name == "o" else 0
        linear.weight = nn.Parameter(linear.weight.detach().index_select(dim, rows))
    attention.n_heads, attention.inner_dim = len(kept), len(kept) * size
    if isinstance(attention, BiasOfKeptHeads):
        attention.kept = kept


def build(fixed: bool) -> Script:
    """Training, pruning half way, and further training."""
    model: Any = T5ForConditionalGeneration(
        T5Config(
            vocab_size=VOCABULARY,
            d_model=WIDTH,
            d_kv=WIDTH // HEADS,
            d_ff=2 * WIDTH,
            num_layers=LAYERS,
            num_heads=HEADS,
            pad_token_id=PAD,
            eos_token_id=None,
        )
    )
    model.config.decoder_start_token_id = BEGIN
    attentions: list[T5Attention] = [block.layer[0].SelfAttention for block in model.encoder.block]
    if fixed:
        for attention in attentions:
            attention.__class__ = BiasOfKeptHeads
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.0)
    script = training(model, causal_batches(4, length=16, padding="right"), optimizer)
    plain, done = script.step, 0

    def step() -> torch.Tensor:
        nonlocal done
        if done == STEPS // 2:
            for layer, head in PRUNED.items():
                prune(attentions[layer], head)
            model.config.pruned_heads = {layer: [head] for layer, head in PRUNED.items()}
            optimizer.param_groups[0]["params"][:] = list(model.parameters())
        done += 1
        return plain()

    script.step = step
    return script


CASE = Case(
    issue="huggingface/transformers#17886",
    reported="Pruning function in T5Attention doesn't affect _relative_position_bucket",
    wrong="Projections lose the pruned heads, the bias that all layers share keeps them, so "
    "that the next forward adds a bias of four heads to scores of three, which raises.",
    category="positional",
    root_cause="relative_position",
    shown="training",
    build=build,
    layers=(0, 1),
)
