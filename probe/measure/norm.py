"""Normalisation layers: their parameters, and their output against the formula."""

from __future__ import annotations

import math

import torch
from torch import nn

from probe.captured import Flow
from probe.measure.numbers import TINY, mean, relative, spread
from probe.measure.sampled import Sampled, Values, eps_of, norm_formula
from probe.recognition import gamma_of
from probe.schema import Metric

_NODES = ("norm_attention", "norm_ffn", "norm_final")

METRICS = (
    Metric(
        "gamma_norm",
        _NODES,
        "positive",
        "",
        "norm of gamma over sqrt(width)",
        "like its peers",
        source="DEFault++",
    ),
    Metric(
        "gamma_mean",
        _NODES,
        "statistic",
        "",
        "mean of gamma (of 1 + w where the layer adds one)",
        "like its peers",
    ),
    Metric(
        "gamma_zero", _NODES, "share", "share", "entries of gamma that are zero", "0", contract=True
    ),
    Metric("beta_mean", _NODES, "statistic", "", "mean of beta", "like its peers"),
    Metric(
        "beta_spread",
        _NODES,
        "statistic",
        "",
        "standard deviation of beta over the root mean square of the same norm's gamma",
        "like its peers, 0 at a random start",
    ),
    Metric(
        "output_std",
        _NODES,
        "positive",
        "",
        "standard deviation of the output over dimensions, mean over tokens",
        "steady",
        source="DEFault++",
    ),
    Metric(
        "formula_error",
        _NODES,
        "residual",
        "relative",
        "output against the formula with the layer's weight, bias and the config's eps",
        "rounding",
        contract=True,
        tolerance=1e-4,
    ),
    Metric(
        "eps_ratio",
        _NODES,
        "signed",
        "log10",
        "the layer's eps against the config's, else its peers'",
        "0",
        contract=True,
    ),
    Metric(
        "decay_severity",
        _NODES,
        "residual",
        "share",
        "share of the parameter that weight decay removes over 1000 steps at the peak rate",
        "below 0.1",
        contract=True,
        tolerance=0.1,
    ),
    Metric(
        "gamma_gap",
        _NODES,
        "signed",
        "log2",
        "gamma's root mean square against the median norm layer's",
        "within a factor of 1.4",
        contract=True,
        tolerance=0.5,
    ),
    Metric(
        "beta_shift",
        _NODES,
        "signed",
        "",
        "mean of beta over the root mean square of the median gamma",
        "near 0",
        contract=True,
        tolerance=0.25,
    ),
)


def measure(
    sampled: Sampled, norm: nn.Module, flow: Flow | None, peers_eps: float | None
) -> Values:
    """Metrics of a norm site. ``peers_eps``: the median eps of the model's norms."""
    parameter = gamma_of(norm)
    assert parameter is not None
    weight = parameter.detach().float()
    bias = getattr(norm, "bias", None)
    own, stated = eps_of(norm), sampled.intent.norm_eps or peers_eps
    eps = stated if stated is not None else own
    seen = flow is not None and flow.into is not None and flow.out is not None
    if seen and eps is not None and type(norm) not in _TORCHS:
        assert flow is not None
        weight = _as_applied(sampled, norm, flow, weight, eps)
    width = weight.numel()
    level = weight.norm() / width**0.5
    values: Values = {
        "gamma_norm": level,
        "gamma_mean": weight.mean(),
        "gamma_zero": (weight == 0).float().mean(),
    }
    if isinstance(bias, torch.Tensor):
        beta = bias.detach().float()
        values["beta_mean"] = beta.mean()
        values["beta_spread"] = beta.std(correction=0) / level.clamp_min(TINY)
    if own is not None and stated and own > 0:
        values["eps_ratio"] = math.log10(own / stated)
    if flow is None or flow.into is None or flow.out is None:
        return values
    out = flow.out.float()
    values["output_std"] = mean(spread(out, -1), sampled.valid)
    if eps is not None:
        errors = [
            relative(out, norm_formula(flow.into.float(), weight, bias, eps, rms), sampled.tokens)
            for rms in _kinds(norm)
        ]
        values["formula_error"] = torch.stack(errors).amin()
    return values


_TORCHS = tuple(kind for kind in (nn.LayerNorm, getattr(nn, "RMSNorm", None)) if kind)


def adds_one(sampled: Sampled) -> torch.Tensor | None:
    """Whether norms of the kind that q goes through multiply by 1 + w, as the block's norms of
    that kind show: 0-d bool; None where q goes through none, or no block norm is of its kind."""
    for layer, kept in zip(sampled.stack.layers, sampled.kept, strict=True):
        own, kind = layer.query_norm, type(layer.query_norm)
        if own is None:
            continue  # a layer of another kind, as hybrids have
        if kind in _TORCHS:
            return None
        for module, flow in (
            (layer.norm_attention, kept.norm_attention), (layer.norm_ffn, kept.norm_ffn),
        ):  # fmt: skip
            if type(module) is not kind or module is None or flow is None:
                continue
            weight, eps = gamma_of(module), eps_of(module)
            if flow.into is None or flow.out is None or eps is None or weight is None:
                continue
            return _nearer_by_one(sampled, module, flow, weight.detach().float(), eps)
    return None


def _nearer_by_one(
    sampled: Sampled, norm: nn.Module, flow: Flow, weight: torch.Tensor, eps: float
) -> torch.Tensor:
    assert flow.into is not None and flow.out is not None
    x, bias, rms = flow.into.float(), getattr(norm, "bias", None), _kinds(norm)[-1]
    plain, more = (
        relative(flow.out.float(), norm_formula(x, w, bias, eps, rms), sampled.tokens)
        for w in (weight, weight + 1.0)
    )
    return (more < 0.02) & (plain > 0.2)


def _as_applied(
    sampled: Sampled, norm: nn.Module, flow: Flow, weight: torch.Tensor, eps: float
) -> torch.Tensor:
    """Gamma, which is 1 + w in some models: whichever makes the output right."""
    return torch.where(_nearer_by_one(sampled, norm, flow, weight, eps), weight + 1.0, weight)


def _kinds(norm: nn.Module) -> tuple[bool, ...]:
    """Whether it is RMSNorm. T5 and hand-written models call theirs LayerNorm: then either."""
    if isinstance(norm, nn.LayerNorm):
        return (False,)
    return (True,) if "rms" in type(norm).__name__.lower() else (False, True)


_SPREADS = 3.0
"""Median deviations from the median that are not told as a gap."""


def against_peers(of_sites: dict[str, Values]) -> None:
    """Add to each norm's values how its gamma and beta compare with the median norm's gamma.

    Training drives gammas apart, over the layers and that of the final norm most, which scales the
    logits: the usual spread of the norms is taken off the gap, and half of what the final norm has.
    """
    known = {site: v["gamma_norm"] for site, v in of_sites.items() if "gamma_norm" in v}
    if len(known) < 2:
        return
    levels = torch.stack([torch.as_tensor(v) for v in known.values()]).clamp_min(1e-9)
    middle = levels.median()
    gaps = torch.log2(levels / middle)
    usual = _SPREADS * gaps.abs().median()
    for site, gap in zip(known, gaps, strict=True):
        values = of_sites[site]
        own = gap / 2 if "norm_final" in site else gap
        values["gamma_gap"] = own.sign() * (own.abs() - usual).clamp_min(0.0)
        if "beta_mean" in values:
            values["beta_shift"] = values["beta_mean"] / middle
