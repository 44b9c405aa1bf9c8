"""Query, key and value are fused; LoRA adapters sit on the projections that no longer run."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers.models.bert.modeling_bert import BertSelfAttention

from diagnoser.corpus.realworld import models
from diagnoser.corpus.realworld.case import Case, Script
from diagnoser.corpus.realworld.scripts import pretrained, training
from diagnoser.corpus.realworld.token_rows import masked_batches


class FusibleAttention(BertSelfAttention):
    """BERT's, with the three projections as one where :meth:`fuse` was called."""

    def fuse(self) -> None:
        """Copy the three projections into one; the originals stay."""
        parts = (self.query, self.key, self.value)
        fused = nn.Linear(self.all_head_size, 3 * self.all_head_size)
        with torch.no_grad():
            fused.weight.copy_(torch.cat([part.weight for part in parts]))
            fused.bias.copy_(torch.cat([part.bias for part in parts]))
        self.to_qkv = fused

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        past_key_values: Any = None,
        **others: Any,
    ) -> Any:
        if hasattr(self, "to_qkv"):
            projected = self.to_qkv(hidden_states).chunk(3, dim=-1)
        else:
            projected = tuple(p(hidden_states) for p in (self.query, self.key, self.value))
        shape = (*hidden_states.shape[:-1], self.num_attention_heads, self.attention_head_size)
        query, key, value = (part.view(shape).transpose(1, 2) for part in projected)
        dropout = self.dropout.p if self.training else 0.0
        out = F.scaled_dot_product_attention(query, key, value, attention_mask, dropout)
        return out.transpose(1, 2).flatten(2), None


def build(fixed: bool) -> Script:
    """Fine-tuning with LoRA on attention and feed-forward; without fusing all of it trains."""
    from peft import LoraConfig, get_peft_model

    model = models.bert()
    for layer in model.bert.encoder.layer:
        layer.attention.self.__class__ = FusibleAttention
    pretrained(model, masked_batches(8))
    if not fixed:
        for layer in model.bert.encoder.layer:
            layer.attention.self.fuse()
    targets = ["query", "key", "value", "intermediate.dense", "output.dense"]
    adapted: Any = get_peft_model(model, LoraConfig(r=4, lora_alpha=8, target_modules=targets))
    return training(adapted, masked_batches(9))


CASE = Case(
    issue="huggingface/diffusers#11903",
    reported="Fused QKV projections incompatible with training",
    wrong="The forward reads the fused projection, the adapters stay on the separate ones: what"
    " attention computes cannot be trained, without any error.",
    category="qkv",
    root_cause="dynamic_parameter_registration",
    shown="training",
    build=build,
)
