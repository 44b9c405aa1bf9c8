"""Which tokens a key/value cache has been given: what cached decoding is compared with later.

A cache is followed from its first forward on. Where something else than a forward changed it in
between (beam search puts rows in another order, assisted decoding takes tokens back) its tokens
are no longer known; that is seen by its keys, which are another tensor then.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass, field
from typing import Any

import torch

ROWS = 2
"""Rows that are followed: the first ones."""
_FOLLOWED = "DynamicLayer"
_OTHERWISE = "QuantizedLayer"
"""Classes of a cache's layers: transformers' own that keeps keys as they are, from which others may
be derived, and one of these that does not."""


@dataclass
class Tokens:
    """``ids``: what the cache was given, forward by forward, (rows, n) each, copies. ``known``:
    they are all it was given."""

    ids: list[torch.Tensor] = field(default_factory=list)
    known: bool = True
    _left: weakref.ref[torch.Tensor] | None = None

    def before_forward(self, keys: torch.Tensor) -> None:
        """``keys`` of the first layer: whether they are as they were left."""
        if self._left is None or self._left() is not keys:
            self.known = False

    def after_forward(self, ids: torch.Tensor, keys: torch.Tensor) -> None:
        """A forward put ``ids`` (batch, n) in."""
        self.ids.append(ids[:ROWS].clone())
        self._left = weakref.ref(keys)


class CachedTokens:
    """Of every cache that is alive. A forward is told by :meth:`begins` and :meth:`ended`."""

    def __init__(self) -> None:
        self._known: weakref.WeakKeyDictionary[Any, Tokens] = weakref.WeakKeyDictionary()

    def begins(self, cache: Any) -> Tokens | None:
        """The tokens that a filled cache holds; None for an empty one, or one not followed."""
        keys = first_keys(cache)
        if keys is None:
            return None
        tokens = self._known.get(cache)
        if tokens is None:
            tokens = self._known[cache] = Tokens(known=False)  # filled before anybody looked
        tokens.before_forward(keys)
        return tokens

    def ended(self, cache: Any, ids: torch.Tensor | None) -> None:
        """The cache after the forward."""
        keys = first_keys(cache)
        if keys is None:
            return
        tokens = self._known.setdefault(cache, Tokens())
        if ids is None or ids.dim() != 2 or ids.shape[0] != keys.shape[0]:
            tokens.known = False
        if tokens.known and ids is not None:
            tokens.after_forward(ids.detach(), keys)


def first_keys(cache: Any) -> torch.Tensor | None:
    """Keys of the first layer, (batch, h, n, d); None where empty, or kept in another way."""
    layers = getattr(cache, "layers", None)
    if not isinstance(layers, list) or not layers:
        return None
    if not all(map(_is_followed, layers)):
        return None
    keys = layers[0].keys
    filled = isinstance(keys, torch.Tensor) and keys.dim() == 4 and keys.shape[2] > 0
    return keys if filled else None


def kind_not_followed(cache: Any) -> str:
    """The kind of its layers where that is none whose keys are those of its tokens (a static cache
    has room for tokens to come); empty for one that is followed, or where there is none."""
    layers = getattr(getattr(cache, "self_attention_cache", cache), "layers", None)
    others = [la for la in layers if not _is_followed(la)] if isinstance(layers, list) else []
    return type(others[0]).__name__ if others else ""


def _is_followed(layer: Any) -> bool:
    names = {kind.__name__ for kind in type(layer).__mro__}
    return _FOLLOWED in names and _OTHERWISE not in names


def is_filled(cache: Any) -> bool:
    """Whether tokens were put in already, whatever kind of cache it is."""
    if cache is None:
        return False
    layers = getattr(getattr(cache, "self_attention_cache", cache), "layers", None)
    if isinstance(layers, list):
        return any(
            isinstance(keys := getattr(layer, "keys", None), torch.Tensor) and keys.numel() > 0
            for layer in layers
        )
    return isinstance(cache, (tuple, list)) and len(cache) > 0
