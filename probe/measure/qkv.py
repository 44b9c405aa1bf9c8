"""Projections to queries, keys and values: alignment, and the kernel's q, k, v against the weights."""

from __future__ import annotations

import math

import torch
from torch.linalg import vector_norm

from probe.anatomy import LayerParts
from probe.captured import LayerCapture
from probe.intent import Intent
from probe.measure.beginning import left_of_first, new_weights
from probe.measure.numbers import by_head, mean, relative, rms, strided
from probe.measure.sampled import Projections, Sampled, Values, flat_heads, heads_meant
from probe.schema import Metric

METRICS = (
    Metric(
        "cos_qk",
        ("qkv",),
        "statistic",
        "cosine",
        "mean cosine of a token's q and k",
        "steady",
        source="DEFault++",
        per_head=True,
    ),
    Metric(
        "cos_qv",
        ("qkv",),
        "statistic",
        "cosine",
        "mean cosine of a token's q and v",
        "steady",
        source="DEFault++",
    ),
    Metric(
        "cos_kv",
        ("qkv",),
        "statistic",
        "cosine",
        "mean cosine of a token's k and v",
        "steady",
        source="DEFault++",
    ),
    Metric(
        "q_norm",
        ("qkv",),
        "positive",
        "",
        "mean norm of q per head over sqrt(head_dim)",
        "like its peers",
        per_head=True,
    ),
    Metric(
        "k_norm",
        ("qkv",),
        "positive",
        "",
        "mean norm of k per head over sqrt(head_dim)",
        "like its peers",
        per_head=True,
    ),
    Metric(
        "v_norm",
        ("qkv",),
        "positive",
        "",
        "mean norm of v per head over sqrt(head_dim)",
        "like its peers",
    ),
    Metric(
        "q_weight",
        ("qkv",),
        "positive",
        "",
        "root mean square of the query weights",
        "like its peers",
    ),
    Metric(
        "k_weight",
        ("qkv",),
        "positive",
        "",
        "root mean square of the key weights",
        "like its peers",
    ),
    Metric(
        "v_weight",
        ("qkv",),
        "positive",
        "",
        "root mean square of the value weights",
        "like its peers",
    ),
    Metric(
        "q_error",
        ("qkv",),
        "residual",
        "relative",
        "kernel's q against input times query weights, norms per head (positions cancel)",
        "0",
        contract=True,
        tolerance=1e-4,
    ),
    Metric(
        "k_error",
        ("qkv",),
        "residual",
        "relative",
        "kernel's k against input times key weights, norms per head",
        "0",
        contract=True,
        tolerance=1e-4,
    ),
    Metric(
        "v_error",
        ("qkv",),
        "residual",
        "relative",
        "kernel's v against input times value weights",
        "0",
        contract=True,
        tolerance=1e-4,
    ),
    Metric(
        "swapped",
        ("qkv",),
        "share",
        "0 or 1",
        "kernel's q fits the key projection and k the query projection better than their own",
        "0",
        contract=True,
    ),
    Metric(
        "tied_heads",
        ("qkv",),
        "share",
        "share",
        "query heads whose weights equal another head's",
        "0",
        contract=True,
    ),
    Metric(
        "tied_outputs",
        ("qkv",),
        "share",
        "share",
        "query heads whose q equals another head's on every sampled token",
        "0",
        contract=True,
    ),
    Metric(
        "head_count",
        ("qkv",),
        "signed",
        "log2",
        "heads the kernel sees against the config's; without a config, against the first samples'",
        "0",
        contract=True,
    ),
    Metric(
        "zero_weights",
        ("qkv",),
        "share",
        "share",
        "of the q, k and v weight matrices, those that are all zero",
        "0",
        contract=True,
    ),
    Metric(
        "weight_gap",
        ("qkv",),
        "signed",
        "log2",
        "smallest of the query, key and value weights' root mean squares against the median of all "
        "layers' projections, as far as it was so in the first sample",
        "within a factor of 2",
        contract=True,
        tolerance=1.0,
    ),
)


_SAME = 0.9999


def measure(
    sampled: Sampled, layer: LayerParts, kept: LayerCapture, made: Projections | None
) -> tuple[Values, Values]:
    """Metrics of site ``qkv@l``, and (h,) of its heads. ``made``: q, k, v by the projections' own
    weights. A key head that several query heads share is told for each of them."""
    values: Values = {}
    meant = heads_meant(sampled.intent, layer, kept, made)
    if made is not None:
        values |= _weights(made, meant or _heads(kept))
    call = kept.call
    if call is None:
        return values, {}
    count = call.q.shape[1]
    spread = _spread(call.k, count), _spread(call.v, count)
    q, k, v = call.q.float(), spread[0].float(), spread[1].float()
    per_head = sampled.valid[:, None, :].expand(q.shape[:3])
    of_keys = sampled.key_valid[:, None, :].expand(k.shape[:3])
    heads: Values = {}
    for name, found, counts in (
        ("q_norm", vector_norm(q, dim=-1) / q.shape[-1] ** 0.5, per_head),
        ("k_norm", vector_norm(k, dim=-1) / k.shape[-1] ** 0.5, of_keys),
    ):
        values[name], heads[name] = by_head(found, counts)
    values |= {
        "v_norm": mean(vector_norm(v, dim=-1) / v.shape[-1] ** 0.5, of_keys),
        "tied_outputs": _tied((q * per_head[..., None]).transpose(0, 1).flatten(1)),
    }
    if sampled.memory is None:
        alike = torch.cosine_similarity(q, k, dim=-1)
        values["cos_qk"], heads["cos_qk"] = by_head(alike, per_head)
        if v.shape == q.shape:
            values["cos_qv"] = mean(torch.cosine_similarity(q, v, dim=-1), per_head)
    if v.shape == k.shape:
        values["cos_kv"] = mean(torch.cosine_similarity(k, v, dim=-1), of_keys)
    if meant:
        values["head_count"] = math.log2(count / meant)
    elif not sampled.intent.family:
        name = f"{layer.site('qkv')}/heads"
        values["head_count"] = math.log2(count / sampled.parts.habits.first_number(name, count))
    if made is not None:
        values |= _against_weights(sampled, kept, made)
    return values, heads


def _heads(kept: LayerCapture) -> int | None:
    return kept.call.heads if kept.call is not None else None


def _weights(made: Projections, heads: int | None) -> Values:
    q, k, v = made.weights
    samples = [strided(w, 4096) for w in (q, k, v)]
    values: Values = {
        "q_weight": rms(q),
        "k_weight": rms(k),
        "v_weight": rms(v),
        "zero_weights": torch.stack([(s.abs().amax() == 0).float() for s in samples]).mean(),
    }
    if heads and heads > 1 and q.shape[0] % heads == 0:
        stride = max(1, q.shape[1] // 256)
        values["tied_heads"] = _tied(q.float()[:, ::stride].reshape(heads, -1))
    return values


def _against_weights(sampled: Sampled, kept: LayerCapture, made: Projections) -> Values:
    call = kept.call
    assert call is not None
    rotary = sampled.intent.rotary_theta is not None
    kv_heads = made.k.shape[-1] // call.k.shape[-1]
    q, k = flat_heads(call.q).float(), flat_heads(call.k, kv_heads).float()
    v = flat_heads(call.v, kv_heads).float()
    values: Values = {}
    tokens, of_keys = sampled.tokens, sampled.key_valid[..., None]
    if v.shape == made.v.shape:
        values["v_error"] = relative(v, made.v, of_keys)
    if q.shape != made.q.shape or k.shape != made.k.shape:
        return values
    dim = call.q.shape[-1]
    q_seen, k_seen, q_made, k_made = (
        _pair_norms(t, dim) if rotary else t for t in (q, k, made.q, made.k)
    )
    # Only where the kernel does not scale can q and k have been scaled before it.
    before = call.by_hand or call.scale == 1.0
    error = _up_to_scale if before else _plain_error
    q_error = error(sampled.intent, tokens, q_seen, q_made, dim)
    k_error = error(sampled.intent, of_keys, k_seen, k_made, dim)
    if rotary:
        lengths = [_pair_norms(t, dim, beside=True) for t in (q, made.q, k, made.k)]
        q_beside = error(sampled.intent, tokens, lengths[0], lengths[1], dim)
        k_beside = error(sampled.intent, of_keys, lengths[2], lengths[3], dim)
        closer = q_beside + k_beside < q_error + k_error
        q_error = torch.where(closer, q_beside, q_error)
        k_error = torch.where(closer, k_beside, k_error)
    turned = sampled.intent.turned
    if not rotary and turned is not False:
        # Turned in a way that is not recomputed, or perhaps not at all: a head keeps its length.
        lengths = [_head_norms(t, dim) for t in (q, made.q, k, made.k)]
        q_turned = error(sampled.intent, tokens, lengths[0], lengths[1], dim)
        k_turned = error(sampled.intent, of_keys, lengths[2], lengths[3], dim)
        q_error, k_error = torch.minimum(q_error, q_turned), torch.minimum(k_error, k_turned)
    values["q_error"] = q_error
    values["k_error"] = k_error
    if sampled.memory is None and q_seen.shape == k_made.shape:
        crossed = relative(q_seen, k_made, tokens)
        values["swapped"] = ((crossed < 0.1) & (q_error > 0.1)).float()
    return values


def _plain_error(
    intent: Intent, tokens: torch.Tensor, seen: torch.Tensor, made: torch.Tensor, dim: int
) -> torch.Tensor:
    return relative(seen, made, tokens)


def _up_to_scale(
    intent: Intent, tokens: torch.Tensor, seen: torch.Tensor, made: torch.Tensor, dim: int
) -> torch.Tensor:
    """Relative error; a factor on q or k that makes up the scale of the scores is no error."""
    whole = intent.scale or dim**-0.5
    factors = (1.0, dim**-0.5, whole, whole**0.5)
    plain, *scaled = (relative(seen, made * factor, tokens) for factor in factors)
    best = torch.stack(scaled).amin()
    return torch.where(best < 0.02, best, plain)


def _pair_norms(flat: torch.Tensor, dim: int, beside: bool = False) -> torch.Tensor:
    """Norms of the pairs that a rotary embedding turns, which keeps them: (i, i + dim / 2), or
    (2 i, 2 i + 1), ``beside`` each other."""
    pairs = flat.unflatten(-1, (-1, dim // 2, 2) if beside else (-1, 2, dim // 2))
    return pairs.norm(dim=-1 if beside else -2).flatten(-2)


def _head_norms(flat: torch.Tensor, dim: int) -> torch.Tensor:
    return flat.unflatten(-1, (-1, dim)).norm(dim=-1)


def _spread(tensor: torch.Tensor, heads: int) -> torch.Tensor:
    own = tensor.shape[1]
    return tensor if own == heads else tensor.repeat_interleave(heads // own, dim=1)


def _tied(rows: torch.Tensor) -> torch.Tensor:
    """Share of rows (heads, n) that point the same way as another one and have its length."""
    norms = rows.norm(dim=-1)
    unit = rows / norms.clamp_min(1e-12)[:, None]
    alike = unit @ unit.t() - 2.0 * torch.eye(len(rows), device=rows.device)
    near = (norms[:, None] / norms[None, :].clamp_min(1e-12) - 1.0).abs() < 1e-3
    return ((alike > _SAME) & near).any(dim=1).float().mean()


def against_peers(sampled: Sampled, of_layers: dict[int, Values]) -> None:
    """Add to each layer's values how its smallest projection compares with all projections, as far
    as it did so from the start."""
    intent, layers = sampled.parts.intent, {la.index: la for la in sampled.stack.layers}
    names = ("q_weight", "k_weight", "v_weight")
    known = {at: [v[n] for n in names if n in v] for at, v in of_layers.items()}
    if intent.scale == 1.0 and intent.head_dim:
        # Where scores are not scaled, the query weights hold the factor from the start.
        folded = intent.head_dim**0.5
        known = {at: [v[0] * folded, *v[1:]] if v else v for at, v in known.items()}
    every = [value for values in known.values() for value in values]
    if len(every) < 3:
        return
    middle = torch.stack([torch.as_tensor(v) for v in every]).median()
    keys = {at: f"{layers[at].site('qkv')}/weight_gap" for at, values in known.items() if values}
    begun = sampled.parts.begun
    new = None if set(keys.values()) <= begun.keys() else new_weights(layers.values())
    for at, key in keys.items():
        least = torch.stack([torch.as_tensor(v) for v in known[at]]).amin()
        gap = torch.log2(least.clamp_min(1e-9) / middle.clamp_min(1e-9))
        of_layers[at]["weight_gap"] = left_of_first(begun, key, gap, new)
