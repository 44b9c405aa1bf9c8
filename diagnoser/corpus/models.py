"""Small models of three families, from transformers' own classes, weights from a seed."""

from __future__ import annotations

import numpy as np
import torch
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    PretrainedConfig,
    PreTrainedModel,
)

from diagnoser.corpus.recipe import Recipe
from diagnoser.corpus.tasks import TASKS, Head
from diagnoser.corpus.vocabulary import BEGIN, END, PAD

_CLASSES: dict[tuple[str, Head], type[PreTrainedModel]] = {
    ("bert", "mlm"): BertForMaskedLM,
    ("bert", "classes"): BertForSequenceClassification,
    ("gpt2", "lm"): GPT2LMHeadModel,
    ("gpt2", "classes"): GPT2ForSequenceClassification,
    ("llama", "lm"): LlamaForCausalLM,
    ("llama", "classes"): LlamaForSequenceClassification,
}


def _bert(recipe: Recipe, positions: int, rng: np.random.Generator) -> PretrainedConfig:
    size = recipe.size
    return BertConfig(
        vocab_size=size.vocabulary,
        hidden_size=size.width,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        intermediate_size=size.width * int(rng.choice([2, 4])),
        hidden_act=str(rng.choice(["gelu", "gelu", "relu", "gelu_new"])),
        hidden_dropout_prob=recipe.dropout,
        attention_probs_dropout_prob=recipe.dropout,
        max_position_embeddings=positions,
        tie_word_embeddings=recipe.tied,
        pad_token_id=PAD,
    )


def _gpt2(recipe: Recipe, positions: int, rng: np.random.Generator) -> PretrainedConfig:
    size = recipe.size
    return GPT2Config(
        vocab_size=size.vocabulary,
        n_embd=size.width,
        n_layer=size.layers,
        n_head=size.heads,
        n_inner=size.width * int(rng.choice([2, 4])),
        activation_function=str(rng.choice(["gelu_new", "gelu_new", "gelu", "relu"])),
        resid_pdrop=recipe.dropout,
        embd_pdrop=recipe.dropout,
        attn_pdrop=recipe.dropout,
        n_positions=positions,
        tie_word_embeddings=recipe.tied,
        pad_token_id=PAD,
        bos_token_id=BEGIN,
        eos_token_id=END,
    )


def _llama(recipe: Recipe, positions: int, rng: np.random.Generator) -> PretrainedConfig:
    size = recipe.size
    return LlamaConfig(
        vocab_size=size.vocabulary,
        hidden_size=size.width,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.kv_heads,
        intermediate_size=size.width * int(rng.choice([2, 3])),
        attention_dropout=recipe.dropout,
        attention_bias=bool(rng.random() < 0.15),
        rms_norm_eps=float(rng.choice([1e-6, 1e-5])),
        rope_parameters={
            "rope_type": "default",
            "rope_theta": float(rng.choice([10_000.0, 500_000.0])),
        },
        max_position_embeddings=positions,
        tie_word_embeddings=recipe.tied,
        pad_token_id=PAD,
        bos_token_id=BEGIN,
        eos_token_id=END,
    )


_CONFIGS = {"bert": _bert, "gpt2": _gpt2, "llama": _llama}


def build(recipe: Recipe) -> PreTrainedModel:
    """The recipe's model in training mode; its weights follow from the recipe's seed alone.

    Seeds torch's global generator, as a script's ``manual_seed`` would.
    """
    task = TASKS[recipe.task]
    rng = np.random.default_rng([recipe.seed, 2])
    positions = recipe.length * int(rng.choice([1, 2, 4]))
    config = _CONFIGS[recipe.family](recipe, positions, rng)
    if task.head == "classes":
        config.num_labels = task.classes
    torch.manual_seed(recipe.seed)
    return _CLASSES[recipe.family, task.head](config).train()
