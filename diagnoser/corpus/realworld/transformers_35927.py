"""Weight decay spares LayerNorm by its class, and so decays every RMSNorm."""

from __future__ import annotations

import torch
from torch import nn

from diagnoser.corpus.realworld import models
from diagnoser.corpus.realworld.case import Case, Script
from diagnoser.corpus.realworld.scripts import RATE, training
from diagnoser.corpus.realworld.token_rows import causal_batches

DECAY = 0.1


def build(fixed: bool) -> Script:
    """Training with two groups of parameters."""
    model = models.llama()
    spared: set[nn.Parameter] = set()
    for module in model.modules():
        named = fixed and "norm" in type(module).__name__.lower()
        if isinstance(module, nn.LayerNorm) or named:
            spared.update(module.parameters(recurse=False))
    groups = [
        {"params": [p for p in model.parameters() if p not in spared], "weight_decay": DECAY},
        {"params": [p for p in model.parameters() if p in spared], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW([group for group in groups if group["params"]], lr=RATE)
    return training(model, causal_batches(23), optimizer)


CASE = Case(
    issue="huggingface/transformers#35927",
    reported="layernorm_decay_fix: weight decay is applied to RMSNorm",
    wrong="Parameters are kept out of decay where their module is an nn.LayerNorm; the model's "
    "norms are of a class of its own.",
    category="layernorm",
    root_cause="regularization",
    shown="training",
    build=build,
)
