"""The mask as applied, against the one implied by attention_mask, causality and packing."""

from __future__ import annotations

import torch

from probe.captured import LayerCapture
from probe.measure.numbers import by_head, mean
from probe.measure.sampled import Sampled, Values
from probe.schema import Metric

METRICS = (
    Metric(
        "padding_mass",
        ("mask",),
        "share",
        "share",
        "attention mass of real tokens on padding",
        "0",
        source="DEFault++",
        contract=True,
        tolerance=1e-5,
        per_head=True,
    ),
    Metric(
        "future_mass",
        ("mask",),
        "share",
        "share",
        "attention mass on later positions, in a causal model",
        "0",
        source="DEFault++",
        contract=True,
        tolerance=1e-5,
        per_head=True,
    ),
    Metric(
        "cross_mass",
        ("mask",),
        "share",
        "share",
        "attention mass on another packed document",
        "0",
        source="DEFault++",
        contract=True,
        tolerance=1e-5,
    ),
    Metric(
        "leaked",
        ("mask",),
        "share",
        "share",
        "pairs that the implied mask hides and the applied one shows",
        "0",
        contract=True,
        tolerance=1e-5,
    ),
    Metric(
        "hidden",
        ("mask",),
        "share",
        "share",
        "pairs that the implied mask shows and the applied one hides",
        "0",
        contract=True,
        tolerance=1e-5,
    ),
    Metric(
        "hidden_near",
        ("mask",),
        "share",
        "share",
        "a token's pairs with itself and its neighbours that the implied mask shows and the applied one hides",
        "0",
    ),
    Metric(
        "hidden_later",
        ("mask",),
        "share",
        "share",
        "of the pairs hidden wrongly, those with a later position",
        "nothing is hidden",
    ),
    Metric(
        "causal_unasked",
        ("mask",),
        "share",
        "0 or 1",
        "later positions are hidden although the architecture is bidirectional",
        "0",
        contract=True,
    ),
)


def measure(sampled: Sampled, kept: LayerCapture, layer: int) -> tuple[Values, Values]:
    """Metrics of site ``mask@l``: mass where none may be, and pairs shown or hidden wrongly; and
    (h,) of its heads."""
    call = kept.call
    if call is None:
        return {}, {}
    weights = call.weights.mean(dim=1)
    shown = call.visible.float().mean(dim=1).expand_as(weights)
    # A query that may see nothing at all (a fully padded row) has no healthy answer.
    implied = sampled.implied_at(layer)
    asks = sampled.valid * (implied.any(dim=-1)).float()
    positions, keys = (
        sampled.picked.positions,
        torch.arange(weights.shape[-1], device=weights.device),
    )
    later = (keys[None, :] > positions[:, None])[None]
    values: Values = {}
    heads: Values = {}
    if sampled.padding is not None:
        on_padding = (call.weights * sampled.padding[:, None, None, :].float()).sum(dim=-1)
        values["padding_mass"], heads["padding_mass"] = by_head(on_padding, asks[:, None, :])
    if sampled.causal is not None:
        # Where the caller's own mask shows later positions, they may be seen.
        ahead = later & ~implied if sampled.batch.full_mask is not None else later
        on_future = (call.weights * ahead[:, None].float()).sum(dim=-1)
        future, by_heads = by_head(on_future, asks[:, None, :])
        values["future_mass"] = torch.where(sampled.causal, future, float("nan"))
        heads["future_mass"] = torch.where(sampled.causal, by_heads, float("nan"))
    if sampled.documents is not None:
        own = sampled.documents[:, positions]
        other = own[:, :, None] != sampled.documents[:, None, :]
        values["cross_mass"] = mean((weights * other).sum(dim=-1), asks)
    pairs = asks[..., None].expand_as(weights)
    wanted = implied.float() * pairs
    unwanted = (1.0 - implied.float()) * pairs
    values["leaked"] = (unwanted * shown).sum() / unwanted.sum().clamp_min(1.0)
    hidden = wanted * (1.0 - shown)
    values["hidden"] = hidden.sum() / wanted.sum().clamp_min(1.0)
    if sampled.causal is not None:
        near = ((keys[None, :] - positions[:, None]).abs() <= 1)[None]
        values["hidden_near"] = mean(1.0 - shown, wanted * near)
        values["hidden_later"] = mean(later.expand_as(hidden), hidden)
        gone = (hidden * later).sum() / (wanted * later).sum().clamp_min(1.0)
        behind = (hidden * ~later).sum() / (wanted * ~later).sum().clamp_min(1.0)
        causal_shape = ((gone > 0.99) & (behind < 0.01)).float()
        unknown = torch.full_like(causal_shape, float("nan"))
        values["causal_unasked"] = torch.where(sampled.causal, unknown, causal_shape)
    return values, heads
