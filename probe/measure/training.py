"""Training dynamics: loss, learning rate, gradients of the whole model, time and memory."""

from __future__ import annotations

import math
import statistics

import torch
from torch import nn

from probe.adapters import own_parameters
from probe.anatomy import LayerParts, ModelParts
from probe.gradients import Gradients
from probe.measure.sampled import Values
from probe.optimizers import parameters_of, rate_of
from probe.recognition import gamma_of
from probe.schema import Metric

METRICS = (
    Metric(
        "loss",
        ("training",),
        "positive",
        "",
        "training loss, mean over the step's micro-batches",
        "falling",
    ),
    Metric(
        "learning_rate",
        ("training",),
        "positive",
        "",
        "largest rate over the optimizer's groups",
        "as scheduled",
    ),
    Metric(
        "grad_norm",
        ("training",),
        "positive",
        "",
        "global gradient norm as the optimizer sees it",
        "steady",
        source="DEFault++",
    ),
    Metric(
        "grad_max",
        ("training",),
        "positive",
        "",
        "largest per-component gradient norm (per root element)",
        "steady",
        source="DEFault++",
    ),
    Metric(
        "grad_min",
        ("training",),
        "positive",
        "",
        "smallest per-component gradient norm (per root element)",
        "above 0",
        source="DEFault++",
    ),
    Metric(
        "grad_mean",
        ("training",),
        "positive",
        "",
        "mean per-component gradient norm",
        "steady",
        source="DEFault++",
    ),
    Metric(
        "grad_spread",
        ("training",),
        "positive",
        "",
        "standard deviation over mean of per-component gradient norms",
        "steady",
        source="DEFault++",
    ),
    Metric(
        "grad_decay",
        ("training",),
        "signed",
        "log2",
        "first layer's gradient norm over the last layer's",
        "steady",
        source="DEFault++",
    ),
    Metric(
        "grad_limited",
        ("training",),
        "share",
        "share",
        "of the gradients' elements that are not zero, those at the largest magnitude, one aside, "
        "on strided elements: where each is clipped by itself, many stand at the limit, in three "
        "parameters or more",
        "near 0",
    ),
    Metric(
        "volatility",
        ("training",),
        "positive",
        "",
        "variance over squared mean of the gradient norm, last 20 samples",
        "below 1",
        source="DEFault++",
    ),
    Metric(
        "clip_level",
        ("training",),
        "positive",
        "",
        "max_norm the gradients were clipped to, where the clipped norm sits at one value",
        "as configured",
    ),
    Metric(
        "step_time",
        ("training",),
        "positive",
        "s",
        "median time of the steps since the last sample",
        "steady",
    ),
    Metric(
        "memory",
        ("training",),
        "positive",
        "bytes",
        "peak memory of the device; of the process on CPU",
        "steady",
    ),
    Metric(
        "uncovered",
        ("training",),
        "share",
        "share",
        "parameters reached in forward, not frozen, that no optimizer group holds",
        "0",
        contract=True,
    ),
    Metric(
        "duplicated",
        ("training",),
        "share",
        "share",
        "parameters that several groups hold",
        "0",
        contract=True,
    ),
    Metric(
        "accuracy",
        ("validation",),
        "share",
        "share",
        "as given by p.validation",
        "rising",
        source="DEFault++",
    ),
    Metric("loss", ("validation",), "positive", "", "as given by p.validation", "falling"),
    Metric(
        "perplexity",
        ("validation",),
        "positive",
        "",
        "as given by p.validation",
        "falling",
        source="DEFault++",
    ),
    Metric(
        "calibration_error",
        ("validation",),
        "share",
        "share",
        "as given by p.validation, e.g. from probe.calibration_error",
        "near 0",
        source="DEFault++",
    ),
)


DECAY_HORIZON = 1000


def coverage(
    parts: ModelParts, optimizers: list[torch.optim.Optimizer], gradients: Gradients
) -> Values:
    """Which parameters with a gradient no optimizer holds, and which stand in several groups."""
    held: dict[int, int] = {}
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                held[id(parameter)] = held.get(id(parameter), 0) + 1
    live = [p for p in parts.root.parameters() if p.requires_grad and gradients.reached(p)]
    if not live or not held:
        return {}
    return {
        "uncovered": sum(id(p) not in held for p in live) / len(live),
        "duplicated": sum(held.get(id(p), 0) > 1 for p in live) / len(live),
    }


def rates(optimizers: list[torch.optim.Optimizer]) -> dict[int, float]:
    """Learning rate by id of the parameter. Rates kept as tensors on a GPU are left out."""
    found: dict[int, float] = {}
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            rate = rate_of(group)
            if rate is not None:
                found.update((id(parameter), rate) for parameter in group["params"])
    return found


def moved_plainly(optimizers: list[torch.optim.Optimizer]) -> set[int]:
    """Parameters, by id, whose optimizer does not scale gradients: small ones move little."""
    return {
        id(parameter)
        for optimizer in optimizers
        if isinstance(optimizer, torch.optim.SGD)
        for parameter in parameters_of(optimizer)
    }


def decays(optimizers: list[torch.optim.Optimizer]) -> dict[int, float]:
    """Weight decay by id of the parameter."""
    return {
        id(parameter): float(group.get("weight_decay", 0.0) or 0.0)
        for optimizer in optimizers
        for group in optimizer.param_groups
        for parameter in group["params"]
    }


def peak_rates(
    optimizers: list[torch.optim.Optimizer], rate: float, peak_rate: float
) -> dict[int, float]:
    """The highest rate each parameter has had, by id, if all follow one schedule: ``rate`` is the
    largest now, ``peak_rate`` the largest so far."""
    share = peak_rate / rate if rate > 0 else math.nan
    return {
        parameter: peak_rate if math.isnan(share) else own * share
        for parameter, own in rates(optimizers).items()
    }


def decay_severity(norm: nn.Module, decay: dict[int, float], peaks: dict[int, float]) -> float:
    """Share of gamma that decay removes in 1000 steps at its peak learning rate, at most 1; NaN
    where no optimizer holds it, as when it is frozen, or its rate is not known."""
    gamma = gamma_of(norm)
    weight = decay.get(id(gamma))
    frozen = gamma is not None and not gamma.requires_grad
    if weight is None or frozen:
        return float("nan")
    return min(1.0, weight * peaks.get(id(gamma), math.nan) * DECAY_HORIZON)


def decay_gaps(parts: ModelParts, decay: dict[int, float]) -> dict[str, float]:
    """Decay of each layer's feed-forward weights minus the median of the same block's other
    matrices, which groups by depth share; of the model's where the block trains no others. By
    site."""
    layers = [(la, _feed_forward_matrices(la)) for la in parts.layers if la.ffn is not None]
    ffn = set().union(*(weights for _, weights in layers))

    def usual(module: nn.Module) -> float:
        others = [id(p) for p in module.parameters() if p.dim() >= 2 and id(p) not in ffn]
        return statistics.median([decay[i] for i in others if i in decay] or [math.nan])

    everywhere = usual(parts.root)
    found = {}
    for layer, weights in layers:
        beside = usual(layer.block)
        most = max((decay[i] for i in weights if i in decay), default=math.nan)
        found[layer.site("ffn")] = most - (everywhere if math.isnan(beside) else beside)
    return found


def _feed_forward_matrices(layer: LayerParts) -> set[int]:
    """By id, adapters' included."""
    linears = [m for m in (layer.gate, layer.expand, layer.contract) if m is not None]
    return {id(p) for m in linears for _, p in own_parameters(m) if p.dim() >= 2}


def decay_by_site(
    parts: ModelParts, decay: dict[int, float], peaks: dict[int, float]
) -> dict[str, Values]:
    """What weight decay does to norms and feed-forward weights, by site."""
    found: dict[str, Values] = {}
    for layer in parts.attentions:
        for node in ("norm_attention", "norm_ffn"):
            norm = getattr(layer, node)
            if norm is not None:
                severity = decay_severity(norm, decay, peaks)
                found[layer.site(node)] = {"decay_severity": severity}
    for site, gap in decay_gaps(parts, decay).items():
        found[site] = {"decay_gap": gap}
    for site, norm in parts.final_norms:
        found[site] = {"decay_severity": decay_severity(norm, decay, peaks)}
    return found


def gradients(by_site: dict[str, Values], first: str, last: str) -> Values:
    """Statistics over the components' gradient norms (each per root element).

    ``first``, ``last``: sites of the outermost layers' feed-forward blocks.
    """
    norms = [v["grad_norm"] for v in by_site.values() if "grad_norm" in v]
    stacked = torch.stack([n for n in norms if isinstance(n, torch.Tensor)]) if norms else None
    if stacked is None:
        return {}
    values: Values = {
        "grad_max": stacked.amax(),
        "grad_min": stacked.amin(),
        "grad_mean": stacked.mean(),
        "grad_spread": stacked.std(correction=0) / stacked.mean().clamp_min(1e-12),
    }
    one, two = (by_site.get(site, {}).get("grad_norm") for site in (first, last))
    if isinstance(one, torch.Tensor) and isinstance(two, torch.Tensor) and first != last:
        values["grad_decay"] = torch.log2(one / two)
    return values
