"""Routers of mixtures of experts: how tokens spread over experts, and that choices and weights are
those that the router's logits and the config imply."""

from __future__ import annotations

import math

import torch

from probe.adapters import base_of
from probe.anatomy import ModelParts
from probe.measure.numbers import mean, relative, rms
from probe.measure.sampled import Values
from probe.recognition import is_linear, weight_of
from probe.routing import Routed, RoutingIntent, read_routing
from probe.schema import Metric
from probe.shards import is_sharded

_NODE = ("router",)

METRICS = (
    Metric(
        "entropy",
        _NODE,
        "share",
        "of log n",
        "mean entropy of a token's routing distribution over log of the experts",
        "steady",
    ),
    Metric(
        "most_used",
        _NODE,
        "share",
        "share",
        "share of the choices that fall on the most used expert",
        "near 1 / experts",
        source="Switch Transformer",
    ),
    Metric(
        "idle_experts",
        _NODE,
        "share",
        "share",
        "experts that no token of the batch chose",
        "near 0",
    ),
    Metric(
        "load_variation",
        _NODE,
        "positive",
        "",
        "standard deviation over mean of the tokens per expert",
        "near 0",
        source="sparsely gated mixture of experts",
    ),
    Metric("weight", _NODE, "positive", "", "root mean square of its weights", "like its peers"),
    Metric(
        "logits_error",
        _NODE,
        "residual",
        "relative",
        "router's logits against its input times its weights",
        "rounding",
        contract=True,
        tolerance=1e-4,
    ),
    Metric(
        "choice_error",
        _NODE,
        "share",
        "share",
        "tokens whose experts are not those with the largest logits",
        "0",
        contract=True,
    ),
    Metric(
        "weight_error",
        _NODE,
        "residual",
        "relative",
        "weights of the chosen experts against the softmax of the logits, normalised as the config "
        "says",
        "rounding",
        contract=True,
        tolerance=1e-4,
    ),
    Metric(
        "sum_gap",
        _NODE,
        "signed",
        "",
        "sum of a token's expert weights minus the one the config implies",
        "0",
        contract=True,
        tolerance=1e-3,
    ),
    Metric(
        "count_gap",
        _NODE,
        "signed",
        "log2",
        "experts a token is given to, against the config's number",
        "0",
        contract=True,
    ),
    Metric(
        "untrained",
        _NODE,
        "share",
        "share",
        "of the experts chosen for tokens that the loss counts, those whose weights' gradient is "
        "zero",
        "0",
        contract=True,
    ),
)

_TIE = 1e-5
"""Logits closer than this share of the largest are as good as each other."""


def measure(parts: ModelParts, router: torch.nn.Module, routed: Routed) -> Values:
    """Metrics of a router's site."""
    intent = read_routing(parts.root, router)
    values: Values = {}
    if routed.entropy is not None:
        values["entropy"] = routed.entropy / math.log(routed.experts)
    load = routed.load
    if load is not None:
        values |= {
            "most_used": load.max() / load.sum(),
            "idle_experts": (load == 0).float().mean(),
            "load_variation": load.std(correction=0) / load.mean(),
        }
    weight = weight_of(router) if is_linear(router) else router.weight
    assert isinstance(weight, torch.Tensor)
    values["weight"] = rms(weight)
    if routed.per_token is not None and intent.per_token:
        values["count_gap"] = math.log2(max(routed.per_token, 1e-6) / intent.per_token)
    if routed.logits is not None:
        values |= _logits(router, weight.detach(), routed, intent)
        values |= _choice(routed, intent)
    return values


def _logits(
    router: torch.nn.Module, weight: torch.Tensor, routed: Routed, intent: RoutingIntent
) -> Values:
    into, logits = routed.into, routed.logits
    if into is None or logits is None or intent.noisy or into.shape[-1] != weight.shape[1]:
        return {}
    implied = into.float() @ weight.float().t()
    bias = getattr(base_of(router) if is_linear(router) else router, "bias", None)
    implied = implied + bias.detach().float() if isinstance(bias, torch.Tensor) else implied
    return {"logits_error": relative(logits, implied)}


def _choice(routed: Routed, intent: RoutingIntent) -> Values:
    """What was chosen, and with what weights, against what the logits imply."""
    logits, chosen, weights = routed.logits, routed.chosen, routed.weights
    if logits is None or chosen is None or intent.per_token is None:
        return {}
    values: Values = {}
    logits, index = logits.float(), chosen.long().clamp(0, routed.experts - 1)
    shares = torch.softmax(logits, dim=-1).gather(-1, index)
    if intent.plain and not intent.noisy:
        worst = logits.gather(-1, index).amin(dim=-1)
        best_left = logits.scatter(-1, index, float("-inf")).amax(dim=-1)
        wrong = best_left > worst + _TIE * logits.abs().amax(dim=-1)
        values["choice_error"] = mean(wrong.float(), torch.ones_like(worst))
    if weights is None or intent.normed is None:
        return values
    weights = weights.float()
    if intent.normed:
        values["sum_gap"] = weights.sum(dim=-1).mean() - intent.scale
    elif intent.plain:
        values["sum_gap"] = (weights - shares * intent.scale).sum(dim=-1).mean()
    if intent.plain:
        implied = shares / shares.sum(dim=-1, keepdim=True) if intent.normed else shares
        values["weight_error"] = relative(weights, implied * intent.scale)
    return values


def untrained(routed: Routed) -> torch.Tensor | None:
    """Share of the counted experts whose gradient is zero; None where it cannot be told.

    An expert that no counted token chose rightly has no gradient; without any such token NaN. Call it while the gradients are
    there: in the step's pre-hook.
    """
    parameter, counted = routed.stacked, routed.counted
    if parameter is None or counted is None or not parameter.requires_grad:
        return None
    gradient = parameter.grad
    if gradient is None or gradient.is_sparse or is_sharded(gradient):
        return None
    still = torch.linalg.vector_norm(gradient.detach().flatten(1), dim=1) == 0
    used = (counted > 0).float()
    return (used * still.float()).sum() / used.sum()
