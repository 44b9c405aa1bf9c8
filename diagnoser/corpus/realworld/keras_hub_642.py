"""BERT's epsilon reaches the norm after the embeddings, not those of the layers."""

from __future__ import annotations

from typing import Any

from torch import nn

from diagnoser.corpus.realworld import models
from diagnoser.corpus.realworld.case import Case, Script
from diagnoser.corpus.realworld.scripts import training
from diagnoser.corpus.realworld.token_rows import masked_batches


def build(fixed: bool) -> Script:
    """Training with the epsilon of BERT, 1e-12."""
    model = models.bert()
    epsilon: dict[str, Any] = {"eps": model.config.layer_norm_eps} if fixed else {}
    for layer in model.bert.encoder.layer:
        layer.attention.output.LayerNorm = nn.LayerNorm(models.WIDTH, **epsilon)
        layer.output.LayerNorm = nn.LayerNorm(models.WIDTH, **epsilon)
    return training(model, masked_batches(20))


CASE = Case(
    issue="keras-team/keras-hub#642",
    reported="Incorrect `epsilon` (LayerNorm) for the Transformer layer in `BERTBackbone`",
    wrong="The norms of the layers are made without an epsilon and get the class's default, 1e-5.",
    category="layernorm",
    root_cause="stability_parameter",
    shown="training",
    build=build,
)
