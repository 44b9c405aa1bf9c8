"""Attention scores q k^T: their distribution, the scale used, the precision they are kept in."""

from __future__ import annotations

import math

import torch

from probe.captured import LayerCapture
from probe.measure.numbers import log2_ratio, moments, significand_bits, std_by_head
from probe.measure.sampled import Projections, Sampled, Values, flat_heads
from probe.schema import Metric

METRICS = (
    Metric(
        "mean",
        ("score",),
        "statistic",
        "",
        "mean score over visible pairs, as recomputed from the kernel's q and k",
        "steady",
        source="DEFault++",
    ),
    Metric(
        "std",
        ("score",),
        "positive",
        "",
        "standard deviation of scores over visible pairs",
        "steady",
        source="DEFault++",
        per_head=True,
    ),
    Metric(
        "skew",
        ("score",),
        "statistic",
        "",
        "skewness of scores over visible pairs",
        "steady",
        source="DEFault++",
    ),
    Metric(
        "kurtosis",
        ("score",),
        "statistic",
        "",
        "excess kurtosis of scores over visible pairs",
        "steady",
        source="DEFault++",
    ),
    Metric("max", ("score",), "statistic", "", "largest visible score", "steady", per_head=True),
    Metric(
        "scale_ratio",
        ("score",),
        "signed",
        "log2",
        "effective scale (kernel scale, and any factor on q or k) against the one this architecture intends",
        "0",
        contract=True,
    ),
    Metric(
        "input_error",
        ("score",),
        "residual",
        "relative",
        "softmax's input against scaled q k^T plus mask, where softmax is called by hand",
        "0",
        contract=True,
        tolerance=1e-4,
    ),
    Metric(
        "dropped",
        ("score",),
        "share",
        "share",
        "visible scores that were set to 0 before softmax",
        "0",
        contract=True,
    ),
    Metric(
        "precision_gap",
        ("score",),
        "signed",
        "bits",
        "bits of significand the scores lost against the dtype asked for (config, autocast)",
        "0",
        contract=True,
    ),
)


def measure(
    sampled: Sampled, kept: LayerCapture, made: Projections | None
) -> tuple[Values, Values]:
    """Metrics of site ``score@l``, and (h,) of its heads."""
    call = kept.call
    if call is None:
        return {}, {}
    scores, visible = call.scores, call.visible.expand_as(call.scores)
    scale: torch.Tensor | float = call.scale
    values: Values = {}
    if call.hand_scores is not None:
        scale, by_hand = _by_hand(sampled, call.hand_scores, scores, visible)
        scores = scores * torch.where(torch.isnan(scale), torch.ones_like(scale), scale)
        asked = made.dtype if made is not None else call.kernel_dtype
        lost = significand_bits(call.score_dtype) - significand_bits(asked)
        if sampled.intent.biased_scores:
            del by_hand["input_error"]
        values |= by_hand | {"precision_gap": float(min(0, lost))}
    else:
        values["precision_gap"] = 0.0
    weight = (visible & sampled.valid[:, None, :, None].bool()).float()
    centre, std, skew, kurtosis = moments(scores, weight)
    largest = scores.masked_fill(weight == 0, -math.inf).amax(dim=(0, 2, 3))
    heads: Values = {"std": std_by_head(scores, weight, centre), "max": largest}
    values |= {
        "mean": centre,
        "std": std,
        "skew": skew,
        "kurtosis": kurtosis,
        "max": largest.amax(),
    }
    # Without a config the field's convention is what a model is expected to follow.
    intended = sampled.intent.scale
    if not sampled.intent.family:
        intended = call.q.shape[-1] ** -0.5
    if intended and made is not None:
        kv_heads = made.k.shape[-1] // call.k.shape[-1]
        gain = _norm_ratio(flat_heads(call.q), made.q) * _norm_ratio(
            flat_heads(call.k, kv_heads), made.k
        )
        values["scale_ratio"] = log2_ratio(gain * scale, torch.full_like(gain, intended))
    return values, heads


def _norm_ratio(seen: torch.Tensor, made: torch.Tensor) -> torch.Tensor:
    return seen.float().norm() / made.norm().clamp_min(1e-12)


def _by_hand(
    sampled: Sampled, hand: torch.Tensor, raw: torch.Tensor, visible: torch.Tensor
) -> tuple[torch.Tensor, Values]:
    """Fit softmax's input against q k^T row by row: an additive mask or bias cancels in the mean."""
    weight = (visible & sampled.valid[:, None, :, None].bool()).float()
    count = weight.sum(dim=-1, keepdim=True).clamp_min(1.0)
    shown = torch.where(weight > 0, hand, torch.zeros_like(hand))
    h = (shown - (shown * weight).sum(-1, keepdim=True) / count) * weight
    s = (raw - (raw * weight).sum(-1, keepdim=True) / count) * weight
    slope = (h * s).sum() / (s * s).sum().clamp_min(1e-12)
    error = (h - slope * s).norm() / h.norm().clamp_min(1e-12)
    dropped = ((hand == 0) & (raw.abs() > 1e-6)).float()
    nothing = torch.full_like(slope, float("nan"))
    return torch.where(error < 1e-2, slope, nothing), {
        "input_error": error,
        "dropped": (dropped * weight).sum() / weight.sum().clamp_min(1.0),
    }
