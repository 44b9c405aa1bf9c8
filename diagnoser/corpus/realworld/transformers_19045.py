"""BERT as a decoder: distances of relative positions are wrong as soon as a cache is used."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers import BertLMHeadModel

from diagnoser.corpus.realworld import models, own_attention
from diagnoser.corpus.realworld.case import Case, Script
from diagnoser.corpus.realworld.scripts import generating


class EmbeddingsWithoutPositions(nn.Module):
    """BERT's for ``position_embedding_type="relative_key"``: distances are all that tells order."""

    def __init__(self, embeddings: Any) -> None:
        super().__init__()
        self.word_embeddings = embeddings.word_embeddings
        self.token_type_embeddings = embeddings.token_type_embeddings
        self.LayerNorm, self.dropout = embeddings.LayerNorm, embeddings.dropout

    def forward(self, input_ids: torch.Tensor, **others: Any) -> torch.Tensor:
        kinds = self.token_type_embeddings(torch.zeros_like(input_ids))
        out: torch.Tensor = self.dropout(self.LayerNorm(self.word_embeddings(input_ids) + kinds))
        return out


def build(fixed: bool) -> Script:
    """Generation with scores that also read an embedding of the distance (Shaw et al., 2018)."""

    def attention(
        module: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,
        scaling: float = 1.0,
        dropout: float = 0.0,
        **others: Any,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        queries, keys = query.shape[2], key.shape[2]
        places = torch.arange(queries)[:, None]
        if fixed:
            places = places + keys - queries
        distance = places - torch.arange(keys)[None, :]
        far = module.distance_embedding(distance + models.LENGTH - 1)
        scores = query @ key.transpose(-1, -2) + torch.einsum("bhld,lrd->bhlr", query, far)
        scores = scores * scaling
        if attention_mask is not None:
            scores = scores.masked_fill(~attention_mask, float("-inf"))
        weights = F.dropout(scores.softmax(dim=-1), dropout)
        return (weights @ value).transpose(1, 2), weights

    model: Any = BertLMHeadModel(models.bert_config(is_decoder=True))
    model.bert.embeddings = EmbeddingsWithoutPositions(model.bert.embeddings)
    for layer in model.bert.encoder.layer:
        own: Any = layer.attention.self
        own.distance_embedding = nn.Embedding(2 * models.LENGTH, models.WIDTH // models.HEADS)
        nn.init.normal_(own.distance_embedding.weight, std=model.config.initializer_range)
    own_attention.use(model, f"relative_key_{fixed}", attention, whole_mask=True)
    return generating(model)


CASE = Case(
    issue="huggingface/transformers#19045",
    reported="BertLMHeadModel with relative position embedding does not work correctly with a "
    "cache",
    wrong="Queries are counted from 0 in every forward: with a cache the distance of the new "
    "token to all others is that of the first one.",
    category="positional",
    root_cause="relative_position",
    shown="generating",
    build=build,
)
