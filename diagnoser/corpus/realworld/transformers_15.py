"""BERT's feed-forward uses GELU whatever the config says."""

from __future__ import annotations

import torch
from torch import nn
from transformers import BertConfig
from transformers.activations import ACT2FN

from diagnoser.corpus.realworld import models
from diagnoser.corpus.realworld.case import Case, Script
from diagnoser.corpus.realworld.scripts import training
from diagnoser.corpus.realworld.token_rows import masked_batches


class Intermediate(nn.Module):
    """The widening half of the feed-forward part."""

    def __init__(self, config: BertConfig, as_configured: bool) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.intermediate_size)
        self.activation = ACT2FN[config.hidden_act if as_configured else "gelu"]

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.activation(self.dense(hidden_states))
        return out


def build(fixed: bool) -> Script:
    """Training with a config that asks for ReLU."""
    model = models.bert(hidden_act="relu")
    for layer in model.bert.encoder.layer:
        own = Intermediate(model.config, as_configured=fixed)
        own.load_state_dict(layer.intermediate.state_dict())
        layer.intermediate = own
    return training(model, masked_batches(19))


CASE = Case(
    issue="huggingface/transformers#15",
    reported="activation function in BERTIntermediate",
    wrong="GELU is written into the module, `config.hidden_act` is not read.",
    category="ffn",
    root_cause="activation_function",
    shown="training",
    build=build,
)
