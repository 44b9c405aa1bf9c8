"""What a model says it intends: read from its config, never from what its modules happen to do.

A wrong model sets its own attributes wrongly; the config and the architecture's conventions are the
statement that the contracts compare against. Everything is None where nothing is stated.
"""

from __future__ import annotations

import math
import re
import sys
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

_UNSCALED = {"t5", "mt5", "umt5", "longt5", "gpt_neo"}
_EPS_UNREAD = {"biogpt", "cvt", "glmasr", "glpn", "segformer", "voxtral"}
"""Their norms are made without the epsilon that their configs state."""
_OTHER_HEADS = re.compile("NextSentencePrediction|MultipleChoice|QuestionAnswering")
"""Heads that give neither classes of a label nor words."""
_SCALES_LOGITS = {"cohere", "cohere2", "cohere2_moe"}
_TURNED_NEAR_ONLY = {"cohere2", "cohere2_moe", "exaone4"}
"""Where every other layer has a window, only those layers turn queries and keys."""


@dataclass(frozen=True)
class Intent:
    """The stated intentions the contracts compare with."""

    family: str
    causal: bool | None
    width: int | None
    heads: int | None
    kv_heads: int | None
    head_dim: int | None
    scale: float | None
    """Factor on q k^T."""
    activation: str | None
    norm_eps: float | None
    attention_dropout: float | None
    residual_dropout: float | None
    attention_implementation: str | None
    rotary_theta: float | None
    rotary_dim: int | None
    turned: bool | None
    """q and k are turned by their position in some way; None where nothing says."""
    classes: int | None
    """Size of the last dimension of the logits."""
    tied: bool | None
    shifted_labels: bool | None
    """The label of a position is the next token (language modelling of decoders)."""
    initial_std: float | None
    pad_token: int | None
    embedding_dropout: float | None = None
    classifier_dropout: float | None = None
    """Only of sequence classification: other heads name theirs in too many ways."""
    positions: int | None = None
    """The longest sequence."""
    biased_scores: bool = False
    """More than a mask comes between scaled q k^T and softmax: positions, or a soft cap."""
    windows: tuple[int | None, ...] = ()
    """Per layer, how many positions back a token sees, itself included; None: all. Empty: all."""
    unturned: frozenset[int] = frozenset()
    """Layers whose queries and keys a rotary model does not turn."""
    norms_heads: bool = False
    """Queries and keys are normed, perhaps without weights."""
    activation_dropout: float = 0.0
    """On what leaves the activation, called as a function."""
    branch_scale: float = 1.0
    """What a branch is multiplied by before it joins the stream."""
    drops_branches: bool = False
    """Branches are left out for whole examples: stochastic depth."""
    logit_scale: float = 1.0
    """What the head's output is multiplied by."""
    logit_cap: float | None = None
    """The logits are c tanh(x / c) of what the head gives."""


def read_intent(root: nn.Module, near: Any = None) -> Intent:
    """Read a transformers config where there is one; else everything stays unstated.

    ``near``: the config of the part that holds the blocks, where the model is made of several.
    """
    config = getattr(root, "config", None)
    if config is None or not hasattr(config, "model_type"):
        return _unstated(config)
    if near is None:
        return read_config(config, type(root).__name__)
    name = type(root).__name__
    found = read_config(near, name)
    coded = getattr(config, "is_encoder_decoder", False)
    generates = name.endswith("ForConditionalGeneration") and not coded
    shifted = found.shifted_labels or generates
    causal = True if generates else found.causal
    return replace(found, shifted_labels=shifted, causal=causal)


def states_tie(root: nn.Module, head: str) -> bool | None:
    """Whether head and embedding are one by the config nearest above the head (its path from the
    root), or by that config's part on text; None where no config says."""
    above = [head.rsplit(".", count)[0] for count in range(1, head.count(".") + 1)]
    modules = [*(root.get_submodule(path) for path in above), root]
    config = next((c for m in modules if (c := vars(m).get("config")) is not None), None)
    stated = [getattr(c, "tie_word_embeddings", None) for c in (config, _of_text(config))]
    known = [bool(tie) for tie in stated if tie is not None]
    return any(known) if known else None


def _of_text(config: Any) -> Any:
    """A config's part on text; the config itself where it has no parts."""
    try:
        return config.get_text_config()
    except (AttributeError, ValueError):  # of no such kind, or more than one part may be meant
        return getattr(config, "text_config", None)


def read_config(config: Any, name: str = "") -> Intent:
    """What a transformers config states. ``name``: class of the model made of it."""
    get = _Getter(config)
    width = get("hidden_size", "n_embd", "d_model", "dim")
    heads = get("num_attention_heads", "n_head", "n_heads")
    head_dim = get("head_dim", "d_kv") or (width // heads if width and heads else None)
    causal = _causal(config, name)
    classifies = "Classification" in name
    return Intent(
        family=str(config.model_type),
        causal=causal,
        width=width,
        heads=heads,
        kv_heads=get("num_key_value_heads") or heads,
        head_dim=head_dim,
        scale=_scale(config, head_dim),
        activation=get(
            "hidden_act",
            "activation_function",
            "hidden_activation",
            "activation",
            "dense_act_fn",
        ),
        norm_eps=None
        if config.model_type in _EPS_UNREAD
        else get("layer_norm_eps", "layer_norm_epsilon", "rms_norm_eps", "norm_eps"),
        attention_dropout=get(
            "attention_probs_dropout_prob",
            "attn_pdrop",
            "attention_dropout",
            "dropout_rate",
        ),
        residual_dropout=get(
            "hidden_dropout_prob",
            "hidden_dropout",
            "residual_dropout",
            "resid_pdrop",
            "resid_dropout",
            "dropout",
            "dropout_rate",
        ),
        attention_implementation=getattr(config, "_attn_implementation", None),
        rotary_theta=_rotary_theta(config),
        rotary_dim=head_dim,
        turned=bool(getattr(config, "rope_parameters", None))
        or any(hasattr(config, name) for name in ("rotary_dim", "rotary_value")),
        classes=None
        if _OTHER_HEADS.search(name)
        else get("num_labels" if classifies else "vocab_size"),
        tied=get("tie_word_embeddings"),
        shifted_labels=name.endswith(("ForCausalLM", "LMHeadModel")),
        initial_std=get("initializer_range"),
        pad_token=get("pad_token_id"),
        embedding_dropout=_rate(
            get(
                "embd_pdrop",
                "embed_dropout",
                "embedding_dropout",
                "hidden_dropout_prob",
                "hidden_dropout",
                "dropout",
                "dropout_rate",
            )
        ),
        classifier_dropout=_classifier_dropout(config, name),
        positions=get("max_position_embeddings", "n_positions"),
        biased_scores=_biased(config),
        windows=_windows(config, get("num_hidden_layers", "n_layer", "num_layers")),
        unturned=_unturned(config),
        activation_dropout=_rate(get("activation_dropout")) or 0.0,
        norms_heads=bool(getattr(config, "use_qk_norm", False)),
        branch_scale=_rate(get("residual_multiplier")) or 1.0,
        drops_branches=bool(_rate(get("drop_path_rate"))),
        logit_scale=_logit_scale(config),
        logit_cap=_rate(get("final_logit_softcapping")),
    )


def _unturned(config: Any) -> frozenset[int]:
    stated = getattr(config, "no_rope_layers", None)
    if isinstance(stated, (list, tuple)):  # which, despite the name, holds 1 where it is turned
        return frozenset(at for at, turned in enumerate(stated) if not turned)
    kinds = getattr(config, "layer_types", None) or []
    if config.model_type in _TURNED_NEAR_ONLY and "sliding_attention" in kinds:
        return frozenset(at for at, kind in enumerate(kinds) if kind != "sliding_attention")
    return frozenset()


def _logit_scale(config: Any) -> float:
    """Some configs state what the logits are multiplied by, others what they are divided by."""
    if config.model_type in _SCALES_LOGITS:
        return _rate(getattr(config, "logit_scale", None)) or 1.0
    return 1.0 / (_rate(getattr(config, "logits_scaling", None)) or 1.0)


def _rate(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) else None


def _classifier_dropout(config: Any, name: str) -> float | None:
    """The classifier's own rate, which some configs leave to the hidden layers' (None)."""
    if "SequenceClassification" not in name:
        return None
    for own in ("classifier_dropout", "seq_classif_dropout"):
        if hasattr(config, own):
            stated = getattr(config, own)
            return _rate(stated if stated is not None else _Getter(config)("hidden_dropout_prob"))
    return None


class _Getter:
    def __init__(self, config: Any) -> None:
        self._config = config

    def __call__(self, *names: str) -> Any:
        for name in names:
            value = getattr(self._config, name, None)
            if value is not None:
                return value
        return None


def _unstated(config: Any) -> Intent:
    """A hand-written model: heads from the usual attribute names of its config, if it has one."""
    get = _Getter(config)
    heads = get("num_attention_heads", "n_head", "n_heads", "num_heads")
    width = get("hidden_size", "n_embd", "d_model", "dim")
    whole = isinstance(heads, int) and isinstance(width, int) and heads > 0
    head_dim = width // heads if whole else None
    return Intent(
        family="",
        causal=None,
        width=width if isinstance(width, int) else None,
        heads=heads if isinstance(heads, int) else None,
        kv_heads=heads if isinstance(heads, int) else None,
        head_dim=head_dim,
        scale=None,
        activation=None,
        norm_eps=None,
        attention_dropout=None,
        residual_dropout=None,
        attention_implementation=None,
        rotary_theta=None,
        rotary_dim=None,
        turned=None,
        classes=None,
        tied=None,
        shifted_labels=None,
        initial_std=None,
        pad_token=None,
    )


def _windows(config: Any, layers: int | None) -> tuple[int | None, ...]:
    """``sliding_window``, in the layers whose type says so, or in all where no types are given."""
    local = getattr(config, "attention_layers", None)
    if isinstance(local, list) and isinstance(getattr(config, "window_size", None), int):
        return tuple(config.window_size if kind == "local" else None for kind in local)
    window = getattr(config, "sliding_window", None)
    if not isinstance(window, int) or not layers:
        return ()
    kinds = getattr(config, "layer_types", None) or ["sliding_attention"] * layers
    return tuple(window if kind == "sliding_attention" else None for kind in kinds)


def _causal(config: Any, name: str) -> bool | None:
    if getattr(config, "is_decoder", False) or name.endswith(("ForCausalLM", "LMHeadModel")):
        return True
    # transformers is loaded already if the model is one of its own; it is never imported here.
    auto = sys.modules.get("transformers.models.auto.modeling_auto")
    if auto is None:
        return None
    kind = config.model_type
    if kind in auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        return kind not in auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES
    return False if kind in auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES else None


def _biased(config: Any) -> bool:
    stated = (
        "alibi", "attn_logit_softcapping", "relative_attention", "relative_attention_num_buckets",
        "has_relative_attention_bias", "has_spatial_attention_bias",
    )  # fmt: skip
    return config.model_type in ("bloom", "mpt") or any(
        bool(getattr(config, name, None)) for name in stated
    )


def _scale(config: Any, head_dim: int | None) -> float | None:
    if config.model_type in _UNSCALED or getattr(config, "scale_attn_weights", True) is False:
        return 1.0
    stated = getattr(config, "attention_multiplier", None)
    if stated:
        return float(stated)
    scalar = getattr(config, "query_pre_attn_scalar", None)
    if scalar:
        return float(scalar) ** -0.5
    if getattr(config, "scale_attn_by_inverse_layer_idx", False):
        return None
    terms = getattr(config, "pos_att_type", None) if _disentangled(config) else None
    return 1.0 / math.sqrt(head_dim * (1 + len(terms or ()))) if head_dim else None


def _disentangled(config: Any) -> bool:
    """DeBERTa's scores are a sum of several terms, each q k^T of its own kind."""
    return bool(getattr(config, "relative_attention", False))


def _rotary_theta(config: Any) -> float | None:
    """Base of a plain rotary embedding; None where there is none or it is scaled in another way."""
    parameters = getattr(config, "rope_parameters", None) or {}
    if not isinstance(parameters, dict):
        return None
    # Sections of several axes: which position a token has is not one number.
    if parameters.get("rope_type", "default") != "default" or parameters.get("mrope_section"):
        return None
    theta = parameters.get("rope_theta", getattr(config, "rope_theta", None))
    partial = parameters.get("partial_rotary_factor", 1.0)
    return float(theta) if theta and partial == 1.0 else None
