"""A user's own attention function under a model of transformers, through its public registry."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import flash_attention_mask, sdpa_mask
from transformers.modeling_utils import PreTrainedModel

Function = Callable[..., Any]


def use(model: PreTrainedModel, name: str, function: Function, whole_mask: bool = False) -> None:
    """Let every attention of ``model`` run ``function(module, query, key, value, attention_mask,
    ...)``, known as ``name``.

    The function masks what is causal by itself and is given what flash attention would be: the
    padding, (rows, keys), or None where there is none. With ``whole_mask`` it is given all that is
    seen, (rows, 1, queries, keys).
    """
    AttentionInterface.register(name, function)
    AttentionMaskInterface.register(name, _whole if whole_mask else flash_attention_mask)
    model.set_attn_implementation(name)


def _whole(*given: Any, **named: Any) -> Any:
    return sdpa_mask(*given, **named | {"allow_is_causal_skip": False})


def shared_heads(module: nn.Module, states: Any) -> Any:
    """Keys or values of (rows, shared heads, n, d) repeated for the heads that share them."""
    return states.repeat_interleave(getattr(module, "num_key_value_groups", 1), dim=1)
