"""A user's own attention function under a model of transformers, through its public registry."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import flash_attention_mask, sdpa_mask
from transformers.modeling_utils import PreTrainedModel

Function = Callable[..., Any]


def use(model: PreTrainedModel, name: str, function: Function, padding_only: bool = False) -> None:
    """Let every attention of ``model`` run ``function(module, query, key, value, attention_mask,
    ...)``, known as ``name``.

    It is given what SDPA would be: a mask of (rows, 1, queries, keys), True where seen, or None
    where all is; with ``padding_only`` what flash attention would be: (rows, keys), or None.
    """
    AttentionInterface.register(name, function)
    AttentionMaskInterface.register(name, flash_attention_mask if padding_only else sdpa_mask)
    model.set_attn_implementation(name)


def shared_heads(module: nn.Module, states: Any) -> Any:
    """Keys or values of (rows, shared heads, n, d) repeated for the heads that share them."""
    return states.repeat_interleave(getattr(module, "num_key_value_groups", 1), dim=1)


def always_masked(name: str) -> None:
    """Give the function ``name`` a whole mask also where a causal flag would do."""

    def whole(*given: Any, **named: Any) -> Any:
        return sdpa_mask(*given, **named | {"allow_is_causal_skip": False})

    AttentionMaskInterface.register(name, whole)
