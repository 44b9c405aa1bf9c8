"""The small models of the cases, from transformers' own classes, three layers of width 64."""

from __future__ import annotations

from typing import Any

from transformers import (
    BertConfig,
    BertForMaskedLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
)

from diagnoser.corpus.realworld.token_rows import BEGIN, PAD, VOCABULARY

WIDTH, HEADS, LAYERS, LENGTH = 64, 4, 3, 64


def bert_config(**settings: Any) -> BertConfig:
    """An encoder's; dropout as published."""
    given: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "hidden_size": WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "intermediate_size": 2 * WIDTH,
        "max_position_embeddings": LENGTH,
        "pad_token_id": PAD,
    }
    return BertConfig(**given | settings)


def bert(**settings: Any) -> BertForMaskedLM:
    """A masked language model."""
    return BertForMaskedLM(bert_config(**settings))


def gpt2(dropout: float = 0.1, **settings: Any) -> GPT2LMHeadModel:
    """A causal language model with learned positions."""
    given: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "n_embd": WIDTH,
        "n_layer": LAYERS,
        "n_head": HEADS,
        "n_positions": LENGTH,
        "resid_pdrop": dropout,
        "embd_pdrop": dropout,
        "attn_pdrop": dropout,
        "pad_token_id": PAD,
        "bos_token_id": BEGIN,
        "eos_token_id": None,
    }
    return GPT2LMHeadModel(GPT2Config(**given | settings))


def rotary_settings(**settings: Any) -> dict[str, Any]:
    """What the configs of Llama and its kin have in common."""
    given: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "hidden_size": WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": HEADS // 2,
        "intermediate_size": 2 * WIDTH,
        "max_position_embeddings": LENGTH,
        "pad_token_id": PAD,
        "bos_token_id": BEGIN,
        "eos_token_id": None,
    }
    return given | settings


def llama(**settings: Any) -> LlamaForCausalLM:
    """A causal language model with rotary positions."""
    return LlamaForCausalLM(LlamaConfig(**rotary_settings(**settings)))
