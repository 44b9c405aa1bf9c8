"""Masks that hide too little, or too much."""

from __future__ import annotations

import torch
from fault_target import Faults, Inapplicable, Target, rewrite


def padding_mask_dropped(at: Target) -> None:
    at.first_stack = True
    mask_dropped(at)


def mask_dropped(at: Target) -> None:
    def change(kind, named):
        if kind == "softmax":
            return named | {"input": named["input"].clamp_min(-1.0)}
        gone = {"attn_mask": None}
        if kind == "packed":
            return named | gone | {"key_padding_mask": None, "is_causal": False}
        return named | gone | {"is_causal": False}

    rewrite(at, change)


def padding_shown(at: Target) -> None:
    def change(kind, named):
        if kind == "packed":
            return named | {"key_padding_mask": None}
        causal = at.parts.stacks[-1].causal or False
        return named | {"attn_mask": None, "is_causal": bool(causal)}

    rewrite(at, change)


def _hiding(n: int, keys: int, device: torch.device) -> torch.Tensor:
    """True where a pair may be seen: all but each token's view of the third key."""
    shown = torch.ones(n, keys, dtype=torch.bool, device=device)
    shown[3:, 2] = False
    return shown


def mask_hides_more(at: Target) -> None:
    def change(kind, named):
        if kind == "softmax":
            scores = named["input"]
            shown = _hiding(scores.shape[-2], scores.shape[-1], scores.device)
            return named | {"input": scores.masked_fill(~shown, float("-inf"))}
        q, k = named["query"], named["key"]
        if kind == "packed":
            n = q.shape[0]
            hidden = ~_hiding(n, n, q.device)
            given = named.get("attn_mask")
            if given is not None and given.dtype == torch.bool:
                hidden = hidden | given
            elif given is not None:
                hidden = given.masked_fill(hidden, float("-inf"))
            elif named.get("key_padding_mask") is not None:
                hidden = torch.zeros(n, n, device=q.device).masked_fill(hidden, float("-inf"))
            return named | {"attn_mask": hidden, "is_causal": False}
        shown = _hiding(q.shape[-2], k.shape[-2], q.device)
        if named.get("is_causal"):
            shown = shown & torch.ones_like(shown).tril()
        given = named.get("attn_mask")
        if given is not None and given.dtype == torch.bool:
            shown = shown & given
        elif given is not None:
            shown = given.masked_fill(~shown, torch.finfo(given.dtype).min)
        return named | {"attn_mask": shown, "is_causal": False}

    rewrite(at, change)


def causal_in_encoder(at: Target) -> None:
    def change(kind, named):
        q = named["query"]
        n = q.shape[0] if kind == "packed" else q.shape[-2]
        ahead = torch.ones(n, n, dtype=torch.bool, device=q.device).triu(1)
        if kind == "packed":
            hidden = torch.zeros(n, n, device=q.device).masked_fill(ahead, float("-inf"))
            return named | {"attn_mask": hidden}
        given = named.get("attn_mask")
        if given is None:
            return named | {"attn_mask": ~ahead}
        if given.dtype == torch.bool:
            return named | {"attn_mask": given & ~ahead}
        return named | {"attn_mask": given.masked_fill(ahead, torch.finfo(given.dtype).min)}

    if at.parts.intent.causal:
        raise Inapplicable
    at.first_stack = True
    rewrite(at, change)


MADE_FOR: Faults = {
    "mask/padding_mass": (padding_mask_dropped,),
    "mask/future_mass": (mask_dropped,),
    "mask/cross_mass": (padding_shown,),
    "mask/leaked": (mask_dropped,),
    "mask/hidden": (mask_hides_more,),
    "mask/causal_unasked": (causal_in_encoder,),
}
