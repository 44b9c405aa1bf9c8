"""Small models of six families, from transformers' own classes, weights from a seed."""

from __future__ import annotations

from typing import Any

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
    MistralConfig,
    MistralForCausalLM,
    MistralForSequenceClassification,
    PretrainedConfig,
    PreTrainedModel,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3ForSequenceClassification,
    RobertaConfig,
    RobertaForMaskedLM,
    RobertaForSequenceClassification,
)

from diagnoser.corpus.recipe import Recipe
from diagnoser.corpus.tasks import TASKS, Head
from diagnoser.corpus.vocabulary import BEGIN, END, PAD

_CLASSES: dict[tuple[str, Head], type[PreTrainedModel]] = {
    ("bert", "mlm"): BertForMaskedLM,
    ("bert", "classes"): BertForSequenceClassification,
    ("roberta", "mlm"): RobertaForMaskedLM,
    ("roberta", "classes"): RobertaForSequenceClassification,
    ("gpt2", "lm"): GPT2LMHeadModel,
    ("gpt2", "classes"): GPT2ForSequenceClassification,
    ("llama", "lm"): LlamaForCausalLM,
    ("llama", "classes"): LlamaForSequenceClassification,
    ("mistral", "lm"): MistralForCausalLM,
    ("mistral", "classes"): MistralForSequenceClassification,
    ("qwen3", "lm"): Qwen3ForCausalLM,
    ("qwen3", "classes"): Qwen3ForSequenceClassification,
}


def _encoder(recipe: Recipe, positions: int, rng: np.random.Generator) -> dict[str, Any]:
    size = recipe.size
    return {
        "vocab_size": size.vocabulary,
        "hidden_size": size.width,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
        "intermediate_size": size.width * int(rng.choice([2, 4])),
        "hidden_act": str(rng.choice(["gelu", "gelu", "relu", "gelu_new"])),
        "hidden_dropout_prob": recipe.dropout,
        "attention_probs_dropout_prob": recipe.dropout,
        "max_position_embeddings": positions,
        "tie_word_embeddings": recipe.tied,
        "pad_token_id": PAD,
    }


def _bert(recipe: Recipe, positions: int, rng: np.random.Generator) -> PretrainedConfig:
    return BertConfig(**_encoder(recipe, positions, rng))


def _roberta(recipe: Recipe, positions: int, rng: np.random.Generator) -> PretrainedConfig:
    # Its positions count from the one after the padding's.
    return RobertaConfig(**_encoder(recipe, positions + PAD + 1, rng), type_vocab_size=1)


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


def _rotary(recipe: Recipe, positions: int, rng: np.random.Generator) -> dict[str, Any]:
    size = recipe.size
    return {
        "vocab_size": size.vocabulary,
        "hidden_size": size.width,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
        "num_key_value_heads": size.kv_heads,
        "head_dim": size.width // size.heads,
        "intermediate_size": size.width * int(rng.choice([2, 3])),
        "attention_dropout": recipe.dropout,
        "rms_norm_eps": float(rng.choice([1e-6, 1e-5])),
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": float(rng.choice([10_000.0, 500_000.0])),
        },
        "max_position_embeddings": positions,
        "tie_word_embeddings": recipe.tied,
        "pad_token_id": PAD,
        "bos_token_id": BEGIN,
        "eos_token_id": END,
    }


def _llama(recipe: Recipe, positions: int, rng: np.random.Generator) -> PretrainedConfig:
    shape = _rotary(recipe, positions, rng)
    return LlamaConfig(**shape, attention_bias=bool(rng.random() < 0.15))


def _mistral(recipe: Recipe, positions: int, rng: np.random.Generator) -> PretrainedConfig:
    shape = _rotary(recipe, positions, rng)
    # A window shorter than the rows acts, one as long as they are does nothing.
    window = (None, recipe.length // 2, recipe.length)[int(rng.integers(3))]
    return MistralConfig(**shape, sliding_window=window)


def _qwen3(recipe: Recipe, positions: int, rng: np.random.Generator) -> PretrainedConfig:
    return Qwen3Config(**_rotary(recipe, positions, rng))


_CONFIGS = {
    "bert": _bert,
    "roberta": _roberta,
    "gpt2": _gpt2,
    "llama": _llama,
    "mistral": _mistral,
    "qwen3": _qwen3,
}


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
