"""A recipe as the settings of a model's config: one function per way of spelling them.

Each takes the recipe, the number of positions the model is made for and a random generator for
what a recipe does not fix, and returns the arguments of the config's class.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from diagnoser.corpus.images import CHANNELS, PATCH, side
from diagnoser.corpus.vocabulary import BEGIN, END, PAD

if TYPE_CHECKING:
    from diagnoser.corpus.recipe import Recipe

Shape = Callable[["Recipe", int, np.random.Generator], dict[str, Any]]

_ENDS = {"pad_token_id": PAD, "bos_token_id": BEGIN, "eos_token_id": END}


def bert(recipe: Recipe, positions: int, rng: np.random.Generator) -> dict[str, Any]:
    """Segments of two kinds; norms after the sums."""
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


def roberta(recipe: Recipe, positions: int, rng: np.random.Generator) -> dict[str, Any]:
    """As BERT, with one kind of segment."""
    # Its positions count from the one after the padding's.
    return {**bert(recipe, positions + PAD + 1, rng), "type_vocab_size": 1}


def factorised(recipe: Recipe, positions: int, rng: np.random.Generator) -> dict[str, Any]:
    """ELECTRA, ALBERT: token vectors may be narrower than the model."""
    shape = bert(recipe, positions, rng)
    return {**shape, "embedding_size": recipe.size.width // int(rng.choice([1, 2]))}


def distilbert(recipe: Recipe, positions: int, rng: np.random.Generator) -> dict[str, Any]:
    """As BERT, without segments."""
    size = recipe.size
    return {
        "vocab_size": size.vocabulary,
        "dim": size.width,
        "n_layers": size.layers,
        "n_heads": size.heads,
        "hidden_dim": size.width * int(rng.choice([2, 4])),
        "activation": str(rng.choice(["gelu", "gelu", "relu"])),
        "dropout": recipe.dropout,
        "attention_dropout": recipe.dropout,
        "seq_classif_dropout": recipe.dropout,
        "max_position_embeddings": positions,
        "tie_word_embeddings": recipe.tied,
        "pad_token_id": PAD,
    }


def gpt2(recipe: Recipe, positions: int, rng: np.random.Generator) -> dict[str, Any]:
    """Learned positions; norms before the branches."""
    size = recipe.size
    return {
        "vocab_size": size.vocabulary,
        "n_embd": size.width,
        "n_layer": size.layers,
        "n_head": size.heads,
        "n_inner": size.width * int(rng.choice([2, 4])),
        "activation_function": str(rng.choice(["gelu_new", "gelu_new", "gelu", "relu"])),
        "resid_pdrop": recipe.dropout,
        "embd_pdrop": recipe.dropout,
        "attn_pdrop": recipe.dropout,
        "n_positions": positions,
        "tie_word_embeddings": recipe.tied,
        **_ENDS,
    }


def gpt_neo(recipe: Recipe, positions: int, rng: np.random.Generator) -> dict[str, Any]:
    """Layers look at all tokens and at a window in turn; a window as long as the rows does
    nothing."""
    size = recipe.size
    kinds = [("global", "local")[index % 2] for index in range(size.layers)]
    return {
        "vocab_size": size.vocabulary,
        "hidden_size": size.width,
        "num_layers": size.layers,
        "num_heads": size.heads,
        "intermediate_size": size.width * int(rng.choice([2, 4])),
        "attention_types": [[kinds, 1]],
        "window_size": (recipe.length // 2, recipe.length)[int(rng.integers(2))],
        "resid_dropout": recipe.dropout,
        "embed_dropout": recipe.dropout,
        "attention_dropout": recipe.dropout,
        "classifier_dropout": recipe.dropout,
        "max_position_embeddings": positions,
        "tie_word_embeddings": recipe.tied,
        **_ENDS,
    }


def opt(recipe: Recipe, positions: int, rng: np.random.Generator) -> dict[str, Any]:
    """As GPT-2, with projections apart."""
    size = recipe.size
    return {
        "vocab_size": size.vocabulary,
        "hidden_size": size.width,
        "word_embed_proj_dim": size.width,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
        "ffn_dim": size.width * int(rng.choice([2, 4])),
        "activation_function": str(rng.choice(["relu", "relu", "gelu"])),
        "dropout": recipe.dropout,
        "attention_dropout": recipe.dropout,
        "max_position_embeddings": positions,
        "tie_word_embeddings": recipe.tied,
        **_ENDS,
    }


def bloom(recipe: Recipe, positions: int, rng: np.random.Generator) -> dict[str, Any]:
    """Positions are a slope on the scores: any number of them."""
    size = recipe.size
    return {
        "vocab_size": size.vocabulary,
        "hidden_size": size.width,
        "n_layer": size.layers,
        "n_head": size.heads,
        "hidden_dropout": recipe.dropout,
        "attention_dropout": recipe.dropout,
        "tie_word_embeddings": recipe.tied,
        **_ENDS,
    }


def rotary(recipe: Recipe, positions: int, rng: np.random.Generator) -> dict[str, Any]:
    """The spelling of Llama and its kin."""
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
        **_ENDS,
    }


def rotary_of_width(recipe: Recipe, positions: int, rng: np.random.Generator) -> dict[str, Any]:
    """Qwen2, Phi-3: the width of a head follows from width and heads."""
    shape = rotary(recipe, positions, rng)
    del shape["head_dim"]
    return shape


def llama(recipe: Recipe, positions: int, rng: np.random.Generator) -> dict[str, Any]:
    """Some with biases on the projections."""
    shape = rotary(recipe, positions, rng)
    return {**shape, "attention_bias": bool(rng.random() < 0.15)}


def mistral(recipe: Recipe, positions: int, rng: np.random.Generator) -> dict[str, Any]:
    """Some with a window."""
    shape = rotary(recipe, positions, rng)
    # A window shorter than the rows acts, one as long as they are does nothing.
    window = (None, recipe.length // 2, recipe.length)[int(rng.integers(3))]
    return {**shape, "sliding_window": window}


def t5(recipe: Recipe, positions: int, rng: np.random.Generator) -> dict[str, Any]:
    """Positions are a bias by distance; both stacks together as deep as the recipe says."""
    size = recipe.size
    return {
        "vocab_size": size.vocabulary,
        "d_model": size.width,
        "d_kv": size.width // size.heads,
        "d_ff": size.width * int(rng.choice([2, 4])),
        "num_layers": max(2, size.layers // 2),
        "num_heads": size.heads,
        "dropout_rate": recipe.dropout,
        "feed_forward_proj": str(rng.choice(["relu", "gated-gelu"])),
        "relative_attention_max_distance": positions,
        "decoder_start_token_id": PAD,
        "pad_token_id": PAD,
        "eos_token_id": END,
    }


def bart(recipe: Recipe, positions: int, rng: np.random.Generator) -> dict[str, Any]:
    """The decoder is as deep as the encoder; both together as deep as the recipe says."""
    size, ffn = recipe.size, recipe.size.width * int(rng.choice([2, 4]))
    layers = max(2, size.layers // 2)
    return {
        "vocab_size": size.vocabulary,
        "d_model": size.width,
        "encoder_layers": layers,
        "decoder_layers": layers,
        "encoder_attention_heads": size.heads,
        "decoder_attention_heads": size.heads,
        "encoder_ffn_dim": ffn,
        "decoder_ffn_dim": ffn,
        "activation_function": str(rng.choice(["gelu", "relu"])),
        "dropout": recipe.dropout,
        "attention_dropout": recipe.dropout,
        "max_position_embeddings": positions,
        "tie_word_embeddings": recipe.tied,
        "decoder_start_token_id": END,
        "forced_eos_token_id": None,
        **_ENDS,
    }


def vit(recipe: Recipe, positions: int, rng: np.random.Generator) -> dict[str, Any]:
    """Images of patches; a classifier on the first token."""
    size = recipe.size
    return {
        "image_size": side(recipe.length),
        "patch_size": PATCH,
        "num_channels": CHANNELS,
        "hidden_size": size.width,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
        "intermediate_size": size.width * int(rng.choice([2, 4])),
        "hidden_act": str(rng.choice(["gelu", "relu"])),
        "hidden_dropout_prob": recipe.dropout,
        "attention_probs_dropout_prob": recipe.dropout,
    }
