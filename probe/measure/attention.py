"""Attention weights and output: shape of the maps, the kernel that ran, its output against float32."""

from __future__ import annotations

import math
import statistics

import torch
from torch import nn

from probe.anatomy import LayerParts, weight_of
from probe.captured import Flow, LayerCapture
from probe.measure.numbers import by_head, relative, rms, significand_bits
from probe.measure.sampled import (
    Projections,
    Sampled,
    Values,
    flat_heads,
    heads_meant,
    linear,
)
from probe.schema import Metric

METRICS = (
    Metric(
        "entropy",
        ("attention",),
        "share",
        "of log n",
        "mean entropy of attention rows over the log of the visible positions",
        "steady",
        source="DEFault++",
        per_head=True,
    ),
    Metric(
        "head_similarity",
        ("attention",),
        "statistic",
        "cosine",
        "mean cosine between heads' maps",
        "below 1",
        source="DEFault++",
    ),
    Metric(
        "head_utilisation",
        ("attention",),
        "share",
        "share",
        "heads whose normalised entropy is over 0.1",
        "near 1",
        source="DEFault++",
    ),
    Metric(
        "max_weight",
        ("attention",),
        "share",
        "",
        "mean over rows of the largest weight",
        "steady",
        per_head=True,
    ),
    Metric(
        "effective_rank",
        ("attention",),
        "share",
        "of n",
        "exp of the entropy of the map's normalised singular values, over the sampled rows",
        "steady",
        source="DEFault++",
        per_head=True,
    ),
    Metric(
        "output_norm",
        ("attention",),
        "positive",
        "",
        "mean norm of a head's output over sqrt(head_dim)",
        "steady",
        per_head=True,
    ),
    Metric(
        "out_weight",
        ("attention",),
        "positive",
        "",
        "root mean square of the output projection's weights",
        "like its peers",
    ),
    Metric(
        "dead_heads",
        ("attention",),
        "share",
        "share",
        "heads that contribute nothing to the output projection",
        "0",
        contract=True,
    ),
    Metric(
        "head_balance",
        ("attention",),
        "share",
        "share",
        "smallest over largest head output norm",
        "like its peers",
    ),
    Metric(
        "reference_error",
        ("attention",),
        "residual",
        "relative",
        "kernel output against softmax(q k^T scale + mask) v in float32 on sampled rows, where no dropout ran",
        "rounding of the output's dtype",
        contract=True,
        tolerance=1e-4,
    ),
    Metric(
        "row_sum_error",
        ("attention",),
        "residual",
        "relative",
        "how far a query's weights are from summing to 1, where softmax is called by hand",
        "0",
        contract=True,
    ),
    Metric(
        "reaches_output",
        ("attention",),
        "residual",
        "relative",
        "what enters the output projection against the kernel's output",
        "0",
        contract=True,
        tolerance=1e-4,
    ),
    Metric(
        "dropout_gap",
        ("attention",),
        "signed",
        "probability",
        "dropout the kernel used minus the one configured for this mode",
        "0",
        contract=True,
    ),
    Metric(
        "kernel_changed",
        ("attention",),
        "share",
        "0 or 1",
        "a different attention implementation ran than the config asks for; without a config, than ran in the first samples",
        "0",
        contract=True,
    ),
    Metric(
        "backend_fallback",
        ("attention",),
        "share",
        "0 or 1",
        "a slower SDPA backend is chosen than the same call in the model's dtype, contiguous, with values no wider than those used and unrestricted, would get",
        "0",
        contract=True,
    ),
    Metric(
        "kernel_calls",
        ("attention",),
        "signed",
        "log2",
        "kernel calls per layer against one",
        "0",
        contract=True,
    ),
    Metric(
        "precision_gap",
        ("attention",),
        "signed",
        "bits",
        "bits of significand of the kernel's input dtype lost against the projections' (or autocast's) dtype; above 0 where it is float64 and they are not",
        "0",
        contract=True,
    ),
    Metric(
        "strided_inputs",
        ("attention",),
        "share",
        "share",
        "of the kernel's q, k and v, those whose last dimension is not contiguous",
        "0",
        contract=True,
    ),
)


def intended_dropout(sampled: Sampled) -> float | None:
    """The config's, else what the kernel got in most layers; None where neither can be told. None is
    intended in evaluation."""
    if not sampled.parts.root.training:
        return 0.0
    if sampled.intent.attention_dropout is not None:
        return float(sampled.intent.attention_dropout)
    seen = [kept.call.dropout for kept in sampled.kept if kept.call is not None]
    known = [p for p in seen if not math.isnan(p)]
    return statistics.median(known) if known and not sampled.intent.family else None


def measure(
    sampled: Sampled,
    layer: LayerParts,
    kept: LayerCapture,
    made: Projections | None,
    dropout: float | None,
) -> tuple[Values, Values]:
    """Metrics of site ``attention@l``, and (h,) of its heads.

    ``effective_rank`` is finished by the publishing thread. ``dropout``: the probability intended
    for the attention weights.
    """
    values: Values = {}
    if kept.kernel_calls and sampled.picked.length:
        values["kernel_calls"] = math.log2(kept.kernel_calls)
    if layer.attention_out is not None:
        values["out_weight"] = rms(weight_of(layer.attention_out))
    if kept.call is None:
        return values, {}
    maps, heads = _maps(sampled, kept)
    values |= maps | _kernel(sampled, kept, made, dropout)
    if not sampled.intent.family:
        values["kernel_changed"] = _left_habit(sampled, layer, kept.call.by_hand)
    gate = made.gate if made is not None else None
    values |= _output(sampled, layer, kept, heads_meant(sampled.intent, layer, kept, made), gate)
    return values, heads


def _output(
    sampled: Sampled,
    layer: LayerParts,
    kept: LayerCapture,
    heads: int | None,
    gate: torch.Tensor | None,
) -> Values:
    call = kept.call
    assert call is not None
    if layer.packed is not None and layer.attention_out is not None:
        return _packed_output(sampled, layer.attention_out, kept)
    into = kept.attention_out.into if kept.attention_out is not None else None
    if into is None or call.output is None:
        return {}
    flat = flat_heads(call.output)
    if flat.shape != into.shape:
        return {}
    if gate is not None and gate.shape == flat.shape:
        flat = flat.float() * gate.sigmoid()
    return {"reaches_output": relative(into, flat, sampled.tokens)} | _contributions(
        sampled, into, heads or call.heads
    )


def _contributions(sampled: Sampled, into: torch.Tensor, heads: int) -> Values:
    """Which heads contribute to ``into`` (r, p, heads * head_dim)."""
    if into.shape[-1] % heads:
        return {}
    shares = (into.float() * sampled.tokens).unflatten(-1, (heads, -1)).square()
    shares = shares.sum(dim=(0, 1, 3)).sqrt()
    top = shares.amax().clamp_min(1e-12)
    dead = (shares < 1e-6 * top).float().mean()
    return {"dead_heads": dead, "head_balance": shares.amin() / top}


def _packed_output(sampled: Sampled, projection: nn.Module, kept: LayerCapture) -> Values:
    """Torch's own attention applies its output projection without calling the module: compare
    behind the projection instead of before it."""
    call, flow = kept.call, kept.packed
    assert call is not None
    if call.output is None or flow is None or flow.out is None:
        return {}
    flat = flat_heads(call.output)
    made = linear(Flow(into=flat), projection)
    if made is None or made.shape != flow.out.shape:
        return {}
    return {"reaches_output": relative(flow.out, made, sampled.tokens)} | _contributions(
        sampled, flat, call.heads
    )


def _maps(sampled: Sampled, kept: LayerCapture) -> tuple[Values, Values]:
    call = kept.call
    assert call is not None
    weights = call.weights
    entropy = -(weights * weights.clamp_min(1e-30).log()).sum(dim=-1)
    seen = call.visible.sum(dim=-1)
    # A row that sees one key has no entropy to speak of.
    counts = sampled.valid[:, None, :] * (seen > 1).float()
    values: Values = {}
    if call.by_hand:
        off = (weights.sum(dim=-1) - 1.0).abs()
        values["row_sum_error"], _ = by_head(off, sampled.valid[:, None, :] * (seen > 0).float())
    heads: Values = {}
    values["entropy"], entropies = by_head(entropy / seen.clamp_min(2).float().log(), counts)
    values["head_utilisation"] = (entropies > 0.1).float().mean()
    values["max_weight"], heads["max_weight"] = by_head(weights.amax(dim=-1), counts)
    maps = (weights * sampled.valid[:, None, :, None]).transpose(0, 1).flatten(1)
    unit = maps / maps.norm(dim=-1, keepdim=True).clamp_min(1e-12)
    count = len(unit)
    if count > 1:
        alike = unit @ unit.t()
        values["head_similarity"] = (alike.sum() - alike.diagonal().sum()) / (count * (count - 1))
    if call.output is not None:
        norms = call.output.float().norm(dim=-1) / call.output.shape[-1] ** 0.5
        values["output_norm"], heads["output_norm"] = by_head(norms, sampled.valid[:, None, :])
    return values, heads | {"entropy": entropies}


def _kernel(
    sampled: Sampled, kept: LayerCapture, made: Projections | None, dropout: float | None
) -> Values:
    call, intent = kept.call, sampled.intent
    assert call is not None
    values: Values = {}
    if dropout is not None:
        values["dropout_gap"] = call.dropout - dropout
    if intent.attention_implementation in ("sdpa", "eager"):
        asked_by_hand = intent.attention_implementation == "eager"
        values["kernel_changed"] = float(call.by_hand != asked_by_hand)
    if call.backend >= 0:
        slower = call.best_backend != 0 or _values_widened(kept)
        values["backend_fallback"] = float(call.backend == 0 and slower)
    values["strided_inputs"] = call.strided
    if made is not None and not call.by_hand:
        lost = significand_bits(call.kernel_dtype) - significand_bits(made.dtype)
        # Scores in float32 under 16 bits are care; nothing in a float32 model asks for float64.
        careful = lost > 0 and call.kernel_dtype != torch.float64
        values["precision_gap"] = 0.0 if careful else float(lost)
    if call.dropout == 0.0 and call.reference is not None and call.output is not None:
        weight = sampled.valid[:, None, :, None]
        # A query that sees nothing yields zeros or NaN by kernel; it has no reference.
        weight = weight * call.visible.any(dim=-1, keepdim=True).float()
        values["reference_error"] = relative(
            call.output.float().nan_to_num(), call.reference, weight
        )
    return values


def _left_habit(sampled: Sampled, layer: LayerParts, by_hand: bool) -> float:
    """Whether another kernel runs than in the first samples; NaN until they have agreed on one."""
    first = sampled.parts.habits.first_number(f"{layer.site('attention')}/by_hand", by_hand)
    return math.nan if math.isnan(first) else float(first != by_hand)


def _values_widened(kept: LayerCapture) -> bool:
    """Whether the kernel is given values wider than its queries, and what comes of the surplus is cut
    off before the output projection: fused kernels want one width."""
    call, into = kept.call, kept.attention_out.into if kept.attention_out is not None else None
    assert call is not None
    if into is None or call.output is None or call.v.shape[-1] <= call.q.shape[-1]:
        return False
    return into.shape[-1] < call.output.shape[1] * call.output.shape[-1]


def gram(kept: LayerCapture) -> torch.Tensor | None:
    """(h, p, p) products of the first picked row's maps: their eigenvalues give the effective rank."""
    if kept.call is None:
        return None
    maps = kept.call.weights[0]
    return maps @ maps.transpose(-1, -2)
