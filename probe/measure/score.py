"""Attention scores q k^T: their distribution, the scale used, the precision they are kept in."""

from __future__ import annotations

import math

import torch

from probe.attention_call import AttentionCall
from probe.captured import LayerCapture
from probe.measure.numbers import log2_ratio, moments, significand_bits
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
    scores, visible = call.scores, call.visible
    scale: torch.Tensor | float = call.scale
    values: Values = {}
    if call.hand_scores is not None:
        scale, by_hand = _by_hand(sampled, call, visible)
        scores = scores * torch.where(torch.isnan(scale), torch.ones_like(scale), scale)
        asked = made.dtype if made is not None else call.kernel_dtype
        lost = significand_bits(call.score_dtype) - significand_bits(asked)
        if sampled.intent.biased_scores:
            del by_hand["input_error"]
        values |= by_hand | {"precision_gap": float(min(0, lost))}
    else:
        values["precision_gap"] = 0.0
    weight = (visible & sampled.valid[:, None, :, None].bool()).float()
    centre, std, skew, kurtosis, of_heads = moments(scores, weight)
    largest = scores.masked_fill(weight == 0, -math.inf).amax(dim=(0, 2, 3))
    heads: Values = {"std": of_heads, "max": largest}
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
        ratio = log2_ratio(gain * scale, torch.full_like(gain, intended))
        if made.one_length is not None:
            ratio = torch.where(made.one_length, torch.nan, ratio)
        values["scale_ratio"] = ratio
    return values, heads


def _norm_ratio(seen: torch.Tensor, made: torch.Tensor) -> torch.Tensor:
    return seen.float().norm() / made.norm().clamp_min(1e-12)


def _by_hand(
    sampled: Sampled, call: AttentionCall, visible: torch.Tensor
) -> tuple[torch.Tensor, Values]:
    """Fit softmax's input against q k^T: (slope, NaN where it does not fit; values).

    An additive mask cancels in a row's mean. What is the same in every row of the batch, as a bias
    by distance is, cancels in the differences of two rows.
    """
    hand, raw = call.hand_scores, call.scores
    assert hand is not None
    weight = (visible & sampled.valid[:, None, :, None].bool()).float()
    shown = torch.where(weight > 0, hand, torch.zeros_like(hand))
    size = _centred(shown, weight).norm().clamp_min(1e-12)
    slope, rest, own = _fit(shown, raw, call.terms, weight)
    error = rest / size
    if len(hand) > 1:
        terms = call.terms[:, 1:] - call.terms[:, :-1] if call.terms is not None else None
        both = weight[1:] * weight[:-1]
        other, rest, own_apart = _fit(shown[1:] - shown[:-1], raw[1:] - raw[:-1], terms, both)
        better = (own_apart < own) & (both.sum() > 0)
        slope, own = torch.where(better, other, slope), torch.where(better, own_apart, own)
        error = torch.where(better, torch.minimum(rest / size, error), error)
    if not sampled.intent.family:
        slope, own, error = _uncapped(shown, raw, weight, (slope, own, error))
    zero = ((hand == 0) & (raw.abs() > 1e-6)).float() * weight
    # Where the largest score was taken off by hand, a row's only zero is that one.
    largest = shown.masked_fill(weight == 0, -math.inf).amax(dim=-1, keepdim=True) == 0
    dropped = zero * (~largest | (zero.sum(dim=-1, keepdim=True) > 1))
    nothing = torch.full_like(slope, float("nan"))
    return torch.where(own < 1e-2, slope, nothing), {
        "input_error": error,
        "dropped": dropped.sum() / weight.sum().clamp_min(1.0),
    }


_CAPS = (15.0, 20.0, 30.0, 50.0)
"""Soft caps in use: Gemma 2's is 50, Grok's 30."""
_CAPPED = 1e-2


def _uncapped(
    shown: torch.Tensor, raw: torch.Tensor, weight: torch.Tensor, plain: tuple[torch.Tensor, ...]
) -> tuple[torch.Tensor, ...]:
    """(slope, error of the fit, error) as if the scores had not gone through c tanh(x / c), where
    that makes them fit q k^T far better than in ``plain``: a model that no config describes may cap
    them."""
    errors = torch.stack(
        [_fit(_freed(shown[:1], cap), raw[:1], None, weight[:1])[2] for cap in _CAPS]
    )
    cap = torch.tensor(_CAPS, device=shown.device).index_select(0, errors.argmin()[None])
    slope, _, own = _fit(_freed(shown, cap), raw, None, weight)
    closer = (own < _CAPPED) & (own < 0.2 * plain[1])
    return tuple(
        torch.where(closer, new, old) for new, old in zip((slope, own, own), plain, strict=True)
    )


def _freed(capped: torch.Tensor, cap: torch.Tensor | float) -> torch.Tensor:
    return cap * torch.atanh((capped / cap).clamp(-1.0 + 1e-6, 1.0 - 1e-6))


def _fit(
    hand: torch.Tensor, raw: torch.Tensor, terms: torch.Tensor | None, weight: torch.Tensor
) -> tuple[torch.Tensor, ...]:
    """Least squares of ``hand`` by ``raw`` and any amount of each term, row by row without their
    means: (coefficient of ``raw``, norm of what is left, the same over the norm of ``hand``)."""
    h, s = _centred(hand, weight), _centred(raw, weight)
    whole = h.norm().clamp_min(1e-12)
    basis: list[torch.Tensor] = []
    for term in terms if terms is not None else ():
        left = _without(_centred(term, weight), basis)
        basis.append(left / left.norm().clamp_min(1e-12))
    h, s = _without(h, basis), _without(s, basis)
    slope = (h * s).sum() / (s * s).sum().clamp_min(1e-12)
    left = (h - slope * s).norm()
    return slope, left, left / whole


def _centred(values: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    count = weight.sum(dim=-1, keepdim=True).clamp_min(1.0)
    return (values - (values * weight).sum(-1, keepdim=True) / count) * weight


def _without(values: torch.Tensor, basis: list[torch.Tensor]) -> torch.Tensor:
    for unit in basis:
        values = values - (values * unit).sum() * unit
    return values


def against_peers(kept: list[LayerCapture], of_layers: list[Values]) -> None:
    """Where another product may have been added to the scores, in a layout that is not known, an
    error tells only if most layers show none; else NaN."""
    added = [k.call is not None and k.call.added_to for k in kept]
    errors = [v["input_error"] for v in of_layers if "input_error" in v]
    if not any(added) or not errors:
        return
    known = torch.stack([torch.as_tensor(error) for error in errors]).median() < 1e-2
    for layer, values in zip(added, of_layers, strict=True):
        if layer and "input_error" in values:
            values["input_error"] = torch.where(known, values["input_error"], torch.nan)
