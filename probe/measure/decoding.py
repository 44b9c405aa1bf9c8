"""A forward that continues a cache, against a fresh one over all its tokens.

The metrics are those of :mod:`probe.measure.kv_cache` and of the mask: what the kernel was given of
the past, and which of it each new token was let see.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from probe.anatomy import LayerParts, ModelParts, is_linear, weight_of
from probe.attention_call import Recorder, leave
from probe.cached_tokens import ROWS
from probe.description import positions_of
from probe.measure.kv_cache import around, compare_keys
from probe.measure.numbers import relative
from probe.measure.sampled import Values
from probe.silenced import Silenced
from probe.stopwatch import Stopwatch

LONGEST = 1024
"""Tokens beyond which a fresh forward would take too long."""


@dataclass
class Given:
    """Of the first rows of a forward that continues a cache. ``ids`` (r, total): all tokens, the
    new ones last; ``new``: how many those are; ``mask`` (r, total) or None; ``positions`` (r, new)
    as the caller gave them, or None; ``batch``: how many rows the forward has in all."""

    ids: torch.Tensor
    new: int
    mask: torch.Tensor | None
    positions: torch.Tensor | None
    batch: int


class _Shown(Recorder):
    """Keeps whole keys and values of the first rows, and which pairs the kernel let attend."""

    def __init__(self, watch: Stopwatch, batch: int) -> None:
        super().__init__(None, watch, batch=batch)
        self.visible: torch.Tensor | None = None

    def _keep_whole(self, key: torch.Tensor, value: torch.Tensor, scores: torch.Tensor) -> None:
        super()._keep_whole(key[:ROWS], value[:ROWS], scores)
        shown = scores[:ROWS].detach()
        self.visible = (shown > shown.amax(dim=-1, keepdim=True) - 1e4).any(dim=1)

    def _see_sdpa(
        self,
        out: torch.Tensor,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attn_mask: torch.Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        *rest: Any,
        **named: Any,
    ) -> None:
        self.key_values.append((key[:ROWS].detach().clone(), value[:ROWS].detach().clone()))
        shape = (key[:ROWS].shape[0], query.shape[2], key.shape[2])
        visible = torch.ones(shape, dtype=torch.bool, device=key.device)
        if is_causal:
            visible = visible.tril()
        if attn_mask is not None:
            shown = attn_mask if attn_mask.dtype == torch.bool else attn_mask > -1e4
            while shown.dim() < 4:
                shown = shown[None]
            visible = visible & shown[:ROWS].any(dim=1)
        self.visible = visible


class Decoding:
    """One such forward: hooks from its beginning, :meth:`measure` after its end."""

    def __init__(self, parts: ModelParts, given: Given, watch: Stopwatch) -> None:
        self._parts, self._given, self._watch = parts, given, watch
        attended = [layer for layer in parts.layers if layer.attention is not None]
        self._recorders = [(layer, _Shown(watch, given.batch)) for layer in attended]
        self._handles: list[Any] = []
        self._returned: Any = None
        for layer, recorder in self._recorders:
            assert layer.attention is not None
            self._handles += around(layer.attention, recorder)
        base: Any = parts.root.base_model
        # A causal model may call what its base model wraps (OPT).
        for module in (base, getattr(base, "decoder", None)):
            if module is not None and module is not parts.root:
                self._handles.append(module.register_forward_hook(self._keep_hidden))

    def _keep_hidden(self, module: Any, args: Any, out: Any) -> None:
        self._returned = out  # looked at later: nothing may raise in here

    def drop(self) -> None:
        """Take every hook off."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        leave(recorder for _, recorder in self._recorders)

    def measure(self, out: Any) -> dict[str, Values]:
        """By site; ``out``: what the forward returned.

        Runs the base model once on the rows kept, without gradients, with forked RNG. Raises what
        the model raises.
        """
        self.drop()
        hidden = _hidden_of(out if self._returned is None else self._returned)
        for _, recorder in self._recorders:
            if recorder.failure is not None:
                raise recorder.failure
        fresh, fresh_hidden = self._fresh()
        whole = self._whole(hidden, fresh_hidden)
        found: dict[str, Values] = {"positional": self._positions()}
        for layer, recorder in self._recorders:
            if recorder.key_values and fresh[layer.index]:
                values = whole | self._keys(layer, fresh[layer.index][0], recorder.key_values[0])
                found[layer.site("kv_cache")] = values
            if recorder.visible is not None:
                found[layer.site("mask")] = self._mask(layer, recorder.visible)
        return found

    def _fresh(self) -> tuple[dict[int, list[Any]], torch.Tensor]:
        given = self._given
        named: dict[str, Any] = {} if given.mask is None else {"attention_mask": given.mask}
        if given.positions is not None:
            named["position_ids"] = self._implied()
        handles: list[Any] = []
        rows = given.ids.shape[0]
        recorders = {layer.index: _Shown(self._watch, rows) for layer, _ in self._recorders}
        devices = [given.ids.device] if given.ids.is_cuda else []
        base: Any = self._parts.root.base_model
        try:
            for layer, _ in self._recorders:
                assert layer.attention is not None
                handles += around(layer.attention, recorders[layer.index])
            with (
                torch.no_grad(),
                torch.random.fork_rng(devices=devices),
                Silenced(given.ids.device.type),
            ):
                out = base(given.ids, **named, use_cache=False)
        finally:
            leave(recorders.values())
            for handle in handles:
                handle.remove()
        return {at: recorder.key_values for at, recorder in recorders.items()}, _hidden_of(out)

    def _implied(self) -> torch.Tensor:
        """Position of every token by its place among the real ones, (r, total)."""
        ids, mask = self._given.ids, self._given.mask
        if mask is None:
            return torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
        return ((mask != 0).long().cumsum(dim=1) - 1).clamp_min(0)

    def _positions(self) -> Values:
        used, new = self._given.positions, self._given.new
        if used is None:
            return {}
        off = (used - self._implied()[:, -new:]).float()
        return {"index_error": (off.abs() > 0.5).float().mean(), "offset": off.mean()}

    def _whole(self, cached: torch.Tensor, fresh: torch.Tensor) -> Values:
        new = self._given.new
        if cached.shape[1] < new:
            return {}
        one, two = cached[:ROWS, -new:].float(), fresh[:, -new:].float()
        values: Values = {"logits_error": relative(one, two)}
        head = self._parts.head
        if head is not None and is_linear(head) and weight_of(head).shape[1] == one.shape[-1]:
            weight = weight_of(head).detach().float()
            p, q = (torch.log_softmax(t @ weight.t(), dim=-1) for t in (one, two))
            values["divergence"] = (p.exp() * (p - q)).sum(dim=-1).mean().clamp_min(0.0)
        return values

    def _keys(self, layer: LayerParts, fresh: Any, cached: Any) -> Values:
        values = compare_keys(fresh, cached, self._given.mask, self._window(layer))
        if positions_of(self._parts) not in ("learned", "rotary"):
            del values["stale_share"]  # without positions the keys of one token are alike
        return values

    def _mask(self, layer: LayerParts, visible: torch.Tensor) -> Values:
        """Pairs shown or hidden wrongly. ``visible`` (r, new, held): the held keys are the last."""
        given = self._given
        if given.new == 1:  # the heads that share keys may be laid out as queries of one head
            visible = visible.any(dim=1, keepdim=True)
        rows, new, held = visible.shape
        total = given.ids.shape[1]
        if new != given.new or held > total:
            return {}
        keys = torch.arange(total - held, total, device=visible.device)
        asked = torch.arange(total - new, total, device=visible.device)
        implied = keys[None, :] <= asked[:, None]
        window = self._window(layer)
        if window is not None:
            implied = implied & (asked[:, None] - keys[None, :] < window)
        pairs = torch.ones(rows, new, 1, device=visible.device)
        implied = implied.expand(rows, new, held)
        if given.mask is not None:
            real = given.mask != 0
            implied = implied & real[:, None, -held:]
            pairs = real[:, -new:, None].float()
        wanted, unwanted = implied.float() * pairs, (~implied).float() * pairs
        shown = visible.float()
        return {
            "leaked": (unwanted * shown).sum() / unwanted.sum().clamp_min(1.0),
            "hidden": (wanted * (1.0 - shown)).sum() / wanted.sum().clamp_min(1.0),
        }

    def _window(self, layer: LayerParts) -> int | None:
        windows = self._parts.intent.windows
        return windows[layer.index] if layer.index < len(windows) else None


def _hidden_of(out: Any) -> torch.Tensor:
    found = getattr(out, "last_hidden_state", None)
    found = out[0] if found is None and isinstance(out, tuple) else found
    if not isinstance(found, torch.Tensor):
        raise TypeError(f"the base model returned {type(out).__name__} without a hidden state")
    return found.detach()
