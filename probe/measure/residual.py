"""Residual junctions: before + branch = after, and how much a branch turns the stream."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.linalg import vector_norm

from probe.anatomy import LayerParts
from probe.captured import Flow, LayerCapture, State
from probe.measure import stochastic_depth
from probe.measure.numbers import mean, relative
from probe.measure.sampled import Sampled, Values
from probe.schema import Metric
from probe.shards import is_sharded

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
        "misfit",
        _NODES,
        "residual",
        "relative",
        "stream after against before and branch, each times the coefficient that fits best",
        "rounding",
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
        "detached",
        _NODES,
        "share",
        "0 or 1",
        "a term of the sum passes no gradient back, though the stream before asks for one",
        "0",
        contract=True,
    ),
    Metric(
        "dropout_gap",
        _NODES,
        "signed",
        "probability",
        "dropout on the branch minus the config's, beyond what chance makes of so many elements",
        "0",
        contract=True,
        tolerance=0.05,
    ),
)


@dataclass
class Junction:
    """before + branch = after, (r, p, width) each.

    ``detached``: whether a term of the sum gets no gradient; None where that cannot be told.
    ``outlet``: what a hand-written module made of the branch in the end, where that may differ.
    ``scales``: (width,) each, that the branch may be multiplied by.
    ``dropout``: the module that drops part of the branch, None where none was seen to run.
    """

    before: torch.Tensor
    branch: torch.Tensor
    after: torch.Tensor
    detached: bool | None = None
    outlet: torch.Tensor | None = None
    scales: tuple[torch.Tensor, ...] = ()
    dropout: nn.Module | None = None


def junctions(layer: LayerParts, kept: LayerCapture, norm_order: str) -> dict[str, Junction]:
    """The two junctions of a block, by node; what was not seen is left out."""
    block, first, second = kept.block, kept.norm_attention, kept.norm_ffn
    if layer.crossing:
        return _of_cross(layer, kept, norm_order)
    if block is None or first is None or second is None or not layer.plain_sums:
        return {}
    attention = kept.attention_last or kept.attention_dropout or kept.attention_out or kept.packed
    ffn = kept.ffn_last or kept.ffn_dropout or kept.contract or kept.experts
    if layer.attention_last is not None or layer.ffn_last is not None:
        reads = kept.norm_before_ffn or kept.expand or kept.experts
        between = reads.entry if reads is not None else None
        ends = block.entry, between, between, block.exit
    elif norm_order == "pre":
        ends = block.entry, (kept.norm_next or second).entry, second.entry, block.exit
    else:
        ends = block.entry, first.entry, (kept.norm_before_ffn or first).exit, second.entry
    drops = [
        drop if last in (None, drop) else None
        for drop, last in (
            (layer.attention_dropout, layer.attention_last),
            (layer.ffn_dropout, layer.ffn_last),
        )
    ]
    candidates = {
        "residual_attention": (ends[0], attention, ends[1], kept.attention_outlet, drops[0]),
        "residual_ffn": (ends[2], ffn, ends[3], kept.ffn_outlet, drops[1]),
    }
    return _told_apart(candidates, layer.scales)


def _of_cross(layer: LayerParts, kept: LayerCapture, norm_order: str) -> dict[str, Junction]:
    """That of a second attention, between the norm before it and the one that reads its sum."""
    ends = kept.norm_before, kept.norm_next
    branch = kept.attention_dropout or kept.attention_out or kept.packed
    if ends[0] is None or ends[1] is None or not layer.plain_sums:
        return {}
    before = ends[0].entry if norm_order == "pre" else ends[0].exit
    outlet, drop = kept.attention_outlet, layer.attention_dropout
    ends_of = {"residual_attention": (before, branch, ends[1].entry, outlet, drop)}
    return _told_apart(ends_of, layer.scales)


_Ends = tuple[
    State | None, Flow | None, State | None, Flow | None, nn.Module | None
]  # before, branch, after, outlet, dropout


def _told_apart(
    candidates: dict[str, _Ends], scales: Sequence[nn.Parameter]
) -> dict[str, Junction]:
    found = {}
    for node, (before, flow, after, other, dropout) in candidates.items():
        branch = flow.out if flow is not None else None
        if before is None or branch is None or after is None:
            continue
        if branch.shape != after.rows.shape:
            continue
        outlet = other.out if other is not None else None
        fits = outlet is not None and outlet.shape == branch.shape
        found[node] = Junction(
            before.rows,
            branch,
            after.rows,
            _detached(before, after),
            outlet if fits else None,
            tuple(s.detach() for s in scales if s.shape == branch.shape[-1:] and not is_sharded(s)),
            dropout,
        )
    return found


def _detached(before: State, after: State) -> bool | None:
    if before.path is None or after.path is None or not before.path.learns:
        return None
    return after.path.cut


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


def of_stack(sampled: Sampled) -> dict[str, Values]:
    """Metrics of all residual sites of a stack, by site."""
    found = {
        layer.site(node): junction
        for layer, kept in zip(sampled.stack.layers, sampled.kept, strict=True)
        for node, junction in junctions(layer, kept, sampled.parts.norm_order).items()
    }
    dropout = intended_dropout(sampled)
    stated = sampled.intent.family and not sampled.intent.drops_branches
    if stated or not sampled.parts.root.training:
        return {site: measure(sampled, j, dropout, sampled.tokens) for site, j in found.items()}
    rows = {
        site: stochastic_depth.left_out(j.before, j.branch, j.after) for site, j in found.items()
    }
    used = stochastic_depth.in_use(sampled.parts.habits, sampled.stack.name, list(rows.values()))
    values = {}
    for site, junction in found.items():
        assert used is not None
        kept = (~(rows[site] & used))[:, None, None]
        values[site] = measure(sampled, junction, dropout, sampled.tokens * kept, used)
    return values


def measure(
    sampled: Sampled,
    junction: Junction,
    dropout: float | None,
    tokens: torch.Tensor,
    grown: torch.Tensor | None = None,
) -> Values:
    """Metrics of a residual site. ``dropout``: the rate intended for the branch. ``tokens``
    (r, p, 1): 1.0 at those that count. ``grown``, 0-d bool: branches were left out for whole
    examples, so that the others' may have been grown."""
    before, branch, after = (t.float() for t in (junction.before, junction.branch, junction.after))
    branch = branch * sampled.intent.branch_scale
    valid = tokens[..., 0]
    width = before.shape[-1]

    def as_joined(branch: torch.Tensor) -> torch.Tensor:
        if grown is None:
            return branch
        factor = stochastic_depth.growth(before, branch, after, tokens)
        return torch.where(grown, branch * factor, branch)

    others = [junction.outlet.float()] if junction.outlet is not None else []
    others += [branch * scale for scale in junction.scales]
    branch = as_joined(branch)
    for other in others:
        branch = _nearer(before, branch, as_joined(other), after, tokens)
    stream, added, total = before * tokens, branch * tokens, after * tokens
    skip, gain = _fit(stream, added, total)
    values: Values = {
        "cosine": mean(torch.cosine_similarity(before, after, dim=-1), valid),
        "branch_ratio": vector_norm(added) / vector_norm(stream).clamp_min(1e-12),
        "stream_norm": mean(vector_norm(after, dim=-1) / width**0.5, valid),
        "sum_error": relative(total, stream + added),
        "misfit": relative(total, skip * stream + gain * added),
        "skip_gain": skip - 1.0,
        "branch_gain": gain - 1.0,
    }
    if junction.detached is not None:
        values["detached"] = float(junction.detached)
    if junction.after.dtype != torch.float32:
        return values | _in_16_bits(tokens, junction, branch, values, dropout)
    if dropout is not None or not sampled.intent.family:
        if dropout is not None and (junction.dropout is not None or dropout == 0.0):
            count = valid.sum() * width
            zero = ((branch == 0) & (tokens > 0)).float().sum()
            lost, large = _left_out(before, branch, after, tokens)
            zero = zero + (count - zero) * lost / large.clamp_min(1.0)
            values["dropout_gap"] = _beyond_chance(zero, count, dropout)
        else:
            values |= _dropped_unseen(tokens, junction, branch, values, dropout)
    return values


def _dropped_unseen(
    tokens: torch.Tensor,
    junction: Junction,
    branch: torch.Tensor,
    values: Values,
    intended: float | None,
) -> Values:
    """Dropout called as a function inside the block shows only in what it leaves out: the stream
    does not change where it could not have rounded the branch away.

    Where some but not all is left out so, the sum is compared with what is left of the branch,
    grown by the intended rate, or by what fits best where no rate is stated or another one ran.
    """
    before, after = junction.before.float(), junction.after.float()
    zero, count = _left_out(before, branch, after, tokens)
    share = zero / count.clamp_min(1.0)
    left = branch * (after != before)
    skip, gain = _fit(before * tokens, left * tokens, after * tokens)
    fitted = skip * before + gain * left
    asked = torch.tensor(torch.nan if intended is None else intended, device=after.device)
    rate = torch.where((share - asked).abs() < _RATE_NOISE, asked, torch.nan)
    grown = torch.where(rate.isnan(), gain, 1.0 / (1.0 - rate))
    found: Values = {
        "sum_error": relative(after, before + left * grown, tokens),
        "misfit": relative(after, fitted, tokens),
        "skip_gain": skip - 1.0,
        "branch_gain": gain * (1.0 - rate) - 1.0,
        "dropout_gap": _beyond_chance(zero, count, asked),
    }
    hidden = (share > 0.01) & (share < 0.99)
    return {
        name: torch.where(hidden, value, torch.as_tensor(values.get(name, torch.nan)))
        for name, value in found.items()
        if isinstance(value, torch.Tensor)
    }


def _left_out(
    before: torch.Tensor, branch: torch.Tensor, after: torch.Tensor, tokens: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Elements of the branch that changed nothing, and how many could not have been rounded away."""
    eps = torch.full((), torch.finfo(after.dtype).eps, device=after.device)
    for dtype in (torch.float16, torch.bfloat16):  # what a float32 tensor may have come through
        eps = torch.where((after.to(dtype) == after).all(), torch.finfo(dtype).eps, eps)
    large = (branch.abs() > 8.0 * eps * before.abs()) & (tokens > 0)
    return ((after == before) & large).float().sum(), large.float().sum()


_RATE_NOISE = 0.05
"""How far the share of left-out elements may be from the rate: about a thousand are seen."""


def _beyond_chance(
    zero: torch.Tensor, count: torch.Tensor, rate: torch.Tensor | float
) -> torch.Tensor:
    """The share of ``count`` elements that are zero minus ``rate``, less three standard errors:
    where a few short rows are all there is, the share of a healthy dropout is far off at times."""
    count = count.clamp_min(1.0)
    share = zero / count
    gap, error = share - rate, (share * (1.0 - share) / count).sqrt()
    return gap.sign() * (gap.abs() - 3.0 * error).clamp_min(0.0)


def _in_16_bits(
    tokens: torch.Tensor,
    junction: Junction,
    branch: torch.Tensor,
    values: Values,
    dropout: float | None,
) -> Values:
    """A small branch is lost in the rounding of the sum, so that its zeros are read from the
    branch itself, and its coefficient only where it is well above that rounding."""
    found: Values = {}
    if dropout != 0.0 and junction.dropout is None:
        found |= _dropped_unseen(tokens, junction, branch, values, dropout)
    floor = 16.0 * torch.finfo(junction.after.dtype).eps
    small = torch.as_tensor(values["branch_ratio"]) < floor
    for name in ("branch_gain", "dropout_gap"):
        known = torch.as_tensor((values | found).get(name, torch.nan))
        found[name] = torch.where(small, torch.nan, known)
    if dropout is not None and junction.dropout is not None:
        zero = ((junction.branch == 0) & (tokens > 0)).float().sum()
        width = junction.branch.shape[-1]
        found["dropout_gap"] = _beyond_chance(zero, tokens.sum() * width, dropout)
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
