"""Residual junctions: before + branch = after, and how much a branch turns the stream."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from probe.capture import LayerCapture
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
    """before + branch = after, (r, p, width) each."""

    before: torch.Tensor
    branch: torch.Tensor
    after: torch.Tensor


def junctions(kept: LayerCapture, norm_order: str) -> dict[str, Junction]:
    """The two junctions of a block, by node; what was not seen is left out."""
    block, first, second = kept.block, kept.norm_attention, kept.norm_ffn
    if block is None or first is None or second is None:
        return {}
    attention = kept.attention_dropout or kept.attention_out
    ffn = kept.ffn_dropout or kept.contract
    pre = norm_order == "pre"
    candidates = {
        "residual_attention": (block.into, attention, second.into if pre else first.into),
        "residual_ffn": (
            second.into if pre else first.out, ffn, block.out if pre else second.into,
        ),
    }  # fmt: skip
    found = {}
    for node, (before, flow, after) in candidates.items():
        branch = flow.out if flow is not None else None
        if before is not None and branch is not None and after is not None:
            found[node] = Junction(before, branch, after)
    return found


def measure(sampled: Sampled, junction: Junction) -> Values:
    """Metrics of a residual site."""
    before, branch, after = (t.float() for t in (junction.before, junction.branch, junction.after))
    tokens, valid = sampled.tokens, sampled.valid
    width = before.shape[-1]
    skip, gain = _fit(before * tokens, branch * tokens, after * tokens)
    values: Values = {
        "cosine": mean(torch.cosine_similarity(before, after, dim=-1), valid),
        "branch_ratio": (branch * tokens).norm() / (before * tokens).norm().clamp_min(1e-12),
        "stream_norm": mean(after.norm(dim=-1) / width**0.5, valid),
        "sum_error": relative(after, before + branch, tokens),
        "skip_gain": skip - 1.0,
        "branch_gain": gain - 1.0,
    }
    if sampled.intent.residual_dropout is not None or junction.after.dtype == torch.float32:
        changed = torch.where(tokens > 0, after - before, torch.ones_like(after))
        zero = ((changed == 0) | ((branch == 0) & (tokens > 0))).float().sum()
        share = zero / (valid.sum() * width).clamp_min(1.0)
        values["dropout_gap"] = share - float(sampled.intent.residual_dropout or 0.0)
    return values


def _fit(
    before: torch.Tensor, branch: torch.Tensor, after: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Least squares of after = a before + b branch; NaN where the two are parallel or zero."""
    bb, ff, bf = (before * before).sum(), (branch * branch).sum(), (before * branch).sum()
    ba, fa = (before * after).sum(), (branch * after).sum()
    det = bb * ff - bf * bf
    det = torch.where(det > 1e-6 * bb * ff, det, torch.full_like(det, float("nan")))
    return (ff * ba - bf * fa) / det, (bb * fa - bf * ba) / det
