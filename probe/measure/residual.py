"""Residual junctions: before + branch = after, and how much a branch turns the stream."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

import torch
from torch import nn

from probe.anatomy import LayerParts
from probe.capture import Flow, LayerCapture
from probe.measure.numbers import mean, relative
from probe.measure.sampled import Sampled, Values
from probe.schema import Metric

_NODES = ("residual_attention", "residual_ffn")

METRICS = (
    Metric(
        "cosine",
        _NODES,
        "statistic",
        "cosine",
        "mean cosine of the stream before and after",
        "steady",
        source="DEFault++",
    ),
    Metric(
        "branch_ratio",
        _NODES,
        "positive",
        "",
        "norm of the branch over the norm of the stream",
        "like its peers",
    ),
    Metric(
        "stream_norm",
        _NODES,
        "positive",
        "",
        "norm of the stream after, over sqrt(width)",
        "steady",
    ),
    Metric(
        "sum_error",
        _NODES,
        "residual",
        "relative",
        "stream after against before + branch",
        "rounding",
        contract=True,
        tolerance=1e-4,
    ),
    Metric(
        "skip_gain",
        _NODES,
        "signed",
        "",
        "coefficient of the stream before in the stream after, minus 1",
        "0",
        contract=True,
    ),
    Metric(
        "branch_gain",
        _NODES,
        "signed",
        "",
        "coefficient of the branch in the stream after, minus 1",
        "0",
        contract=True,
    ),
    Metric(
        "dropout_gap",
        _NODES,
        "signed",
        "probability",
        "dropout on the branch minus the config's",
        "0",
        contract=True,
        tolerance=0.05,
    ),
)


@dataclass
class Junction:
    """before + branch = after, (r, p, width) each.

    ``outlet``: what a hand-written module made of the branch in the end, where that may differ.
    ``dropout``: the module that drops part of the branch, None where none was seen to run.
    """

    before: torch.Tensor
    branch: torch.Tensor
    after: torch.Tensor
    outlet: torch.Tensor | None = None
    dropout: nn.Module | None = None


def junctions(layer: LayerParts, kept: LayerCapture, norm_order: str) -> dict[str, Junction]:
    """The two junctions of a block, by node; what was not seen is left out."""
    block, first, second = kept.block, kept.norm_attention, kept.norm_ffn
    if layer.crossing:
        return _of_cross(layer, kept, norm_order)
    if block is None or first is None or second is None or not layer.plain_sums:
        return {}
    attention = kept.attention_dropout or kept.attention_out or kept.packed
    ffn = kept.ffn_dropout or kept.contract or kept.experts
    pre = norm_order == "pre"
    joined = kept.norm_next or second
    last = kept.norm_before_ffn or first
    candidates = {
        "residual_attention": (
            block.into, attention, joined.into if pre else first.into,
            kept.attention_outlet, layer.attention_dropout,
        ),
        "residual_ffn": (
            second.into if pre else last.out, ffn, block.out if pre else second.into,
            kept.ffn_outlet, layer.ffn_dropout,
        ),
    }  # fmt: skip
    return _told_apart(candidates)


def _of_cross(layer: LayerParts, kept: LayerCapture, norm_order: str) -> dict[str, Junction]:
    """That of a second attention, between the norm before it and the one that reads its sum."""
    ends = kept.norm_before, kept.norm_next
    branch = kept.attention_dropout or kept.attention_out or kept.packed
    if ends[0] is None or ends[1] is None or not layer.plain_sums:
        return {}
    before = ends[0].into if norm_order == "pre" else ends[0].out
    outlet, drop = kept.attention_outlet, layer.attention_dropout
    return _told_apart({"residual_attention": (before, branch, ends[1].into, outlet, drop)})


_Ends = tuple[
    torch.Tensor | None, Flow | None, torch.Tensor | None, Flow | None, nn.Module | None
]  # before, branch, after, outlet, dropout


def _told_apart(candidates: dict[str, _Ends]) -> dict[str, Junction]:
    found = {}
    for node, (before, flow, after, other, dropout) in candidates.items():
        branch = flow.out if flow is not None else None
        if before is None or branch is None or after is None or branch.shape != after.shape:
            continue
        outlet = other.out if other is not None else None
        fits = outlet is not None and outlet.shape == branch.shape
        found[node] = Junction(before, branch, after, outlet if fits else None, dropout)
    return found


def intended_dropout(sampled: Sampled) -> float | None:
    """Dropout on the branches: the config's, else what most layers' modules hold, else none. None
    in evaluation."""
    if not sampled.parts.root.training:
        return 0.0
    if sampled.intent.residual_dropout is not None:
        return float(sampled.intent.residual_dropout)
    if sampled.intent.family:
        return 0.0
    modules = [m for la in sampled.stack.layers for m in (la.attention_dropout, la.ffn_dropout)]
    rates = [float(p) for m in modules if isinstance(p := getattr(m, "p", None), (int, float))]
    return statistics.median(rates) if rates else None


def measure(sampled: Sampled, junction: Junction, dropout: float | None) -> Values:
    """Metrics of a residual site. ``dropout``: the rate intended for the branch."""
    before, branch, after = (t.float() for t in (junction.before, junction.branch, junction.after))
    tokens, valid = sampled.tokens, sampled.valid
    width = before.shape[-1]
    if junction.outlet is not None:
        branch = _nearer(before, branch, junction.outlet.float(), after, tokens)
    skip, gain = _fit(before * tokens, branch * tokens, after * tokens)
    values: Values = {
        "cosine": mean(torch.cosine_similarity(before, after, dim=-1), valid),
        "branch_ratio": (branch * tokens).norm() / (before * tokens).norm().clamp_min(1e-12),
        "stream_norm": mean(after.norm(dim=-1) / width**0.5, valid),
        "sum_error": relative(after, before + branch, tokens),
        "skip_gain": skip - 1.0,
        "branch_gain": gain - 1.0,
    }
    if junction.after.dtype != torch.float32:
        return values | _in_16_bits(sampled, junction, values, dropout)
    if dropout is not None or not sampled.intent.family:
        changed = torch.where(tokens > 0, after - before, torch.ones_like(after))
        zero = ((changed == 0) | ((branch == 0) & (tokens > 0))).float().sum()
        share = zero / (valid.sum() * width).clamp_min(1.0)
        if dropout is not None and (junction.dropout is not None or dropout == 0.0):
            values["dropout_gap"] = share - dropout
        else:
            values |= _unless_dropped_unseen(sampled, junction, branch, values)
    return values


def _unless_dropped_unseen(
    sampled: Sampled, junction: Junction, branch: torch.Tensor, values: Values
) -> Values:
    """Dropout called as a function inside the block shows only in what it leaves out: where parts
    of the branch that the stream could not have rounded away are missing, NaN."""
    before, after = junction.before.float(), junction.after.float()
    eps = torch.finfo(junction.after.dtype).eps
    large = (branch.abs() > 8.0 * eps * before.abs()) & (sampled.tokens > 0)
    share = ((after == before) & large).float().sum() / large.float().sum().clamp_min(1.0)
    hidden = (share > 0.01) & (share < 0.99)
    names = ("sum_error", "skip_gain", "branch_gain")
    return {n: torch.where(hidden, torch.nan, torch.as_tensor(values[n])) for n in names}


def _in_16_bits(
    sampled: Sampled, junction: Junction, values: Values, dropout: float | None
) -> Values:
    """A small branch is lost in the rounding of the sum, so that its zeros are read from the
    branch itself, and its coefficient only where it is well above that rounding."""
    floor = 16.0 * torch.finfo(junction.after.dtype).eps
    gain, ratio = torch.as_tensor(values["branch_gain"]), torch.as_tensor(values["branch_ratio"])
    found: Values = {"branch_gain": torch.where(ratio < floor, torch.nan, gain)}
    if dropout != 0.0 and junction.dropout is None:
        branch = junction.branch.float()
        found = _unless_dropped_unseen(sampled, junction, branch, values | found)
    if dropout is not None and junction.dropout is not None:
        zero = ((junction.branch == 0) & (sampled.tokens > 0)).float().sum()
        width = junction.branch.shape[-1]
        found["dropout_gap"] = zero / (sampled.valid.sum() * width).clamp_min(1.0) - dropout
    return found


def _nearer(
    before: torch.Tensor,
    branch: torch.Tensor,
    outlet: torch.Tensor,
    after: torch.Tensor,
    tokens: torch.Tensor,
) -> torch.Tensor:
    """The branch as it left its last module, where only that makes the sum right."""
    plain, other = (relative(after, before + t, tokens) for t in (branch, outlet))
    return torch.where((other < 0.02) & (plain > 2.0 * other), outlet, branch)


def _fit(
    before: torch.Tensor, branch: torch.Tensor, after: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Least squares of after = a before + b branch; NaN where the two are parallel or zero."""
    bb, ff, bf = (before * before).sum(), (branch * branch).sum(), (before * branch).sum()
    ba, fa = (before * after).sum(), (branch * after).sum()
    det = bb * ff - bf * bf
    det = torch.where(det > 1e-6 * bb * ff, det, torch.full_like(det, float("nan")))
    return (ff * ba - bf * fa) / det, (bb * fa - bf * ba) / det
