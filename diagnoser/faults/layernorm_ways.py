"""Further ways of norm faults: 1 + gamma, drawn beta, epsilon beside the root, L2 penalty."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from diagnoser.faults.fault import Injection, Table
from diagnoser.faults.gradient_changes import penalise
from diagnoser.faults.layernorm import epsilon_name, has_beta, norms_of
from diagnoser.faults.override import edit_parameter, override_forward

LAYERNORM_WAYS = Table("layernorm", beyond=True)


def _centred(norm: nn.Module, hidden: torch.Tensor) -> torch.Tensor:
    """LayerNorm takes the mean away, RMSNorm (which has no ``eps``) does not."""
    wide = hidden.float()
    return wide - wide.mean(-1, keepdim=True) if isinstance(norm, nn.LayerNorm) else wide


@LAYERNORM_WAYS.operator(
    "NOW",
    "scale_parameter",
    "apply 1 + gamma where gamma is meant",
    happens="the (1 + w) convention of Gemma's norms on a checkpoint that stores w itself "
    "(Blaizzy/mlx-vlm#2111, huggingface/transformers#40796)",
)
def add_one_to_gamma(injection: Injection) -> None:
    """The stored gamma is right, the norm uses one more: about twice the gain."""

    def build_for(norm: nn.Module) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        epsilon = float(getattr(norm, epsilon_name(norm)))

        def build(original: Callable[..., Any]) -> Callable[..., Any]:
            def forward(hidden: torch.Tensor) -> torch.Tensor:
                wide = _centred(norm, hidden)
                plain = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + epsilon)
                result = original(hidden)
                return result + plain.to(result.dtype)

            return forward

        return build

    for norm in norms_of(injection):
        override_forward(injection.undo, norm, build_for(norm))


@LAYERNORM_WAYS.operator(
    "NBR",
    "bias_parameter",
    "draw beta at random",
    parameter="sigma",
    values=(0.5, 1.0, 2.0),
    families=("bert", "gpt2"),
    requires=has_beta,
    happens="an initialiser that draws every parameter of the model, biases of norms among them: "
    "the mean of beta stays near 0, each dimension is shifted its own way",
)
def draw_beta(injection: Injection) -> None:
    """Gaussian noise of deviation ``sigma`` is added to beta, once. RMSNorm has no beta."""
    sigma = injection.number
    generator = torch.Generator().manual_seed(injection.fault.seed)

    def change(data: torch.Tensor) -> None:
        data.add_(sigma * torch.randn(data.shape, generator=generator).to(data))

    for norm in norms_of(injection):
        edit_parameter(injection.undo, norm.bias, change)  # type: ignore[arg-type]


@LAYERNORM_WAYS.operator(
    "NEO",
    "stability_parameter",
    "add epsilon to the deviation instead of the variance",
    parameter="value",
    values=(0.01, 0.1, 1.0),
    happens="`(x - mean) / (std + eps)`, as in hand-written norms, with an eps that is not small "
    "beside the deviation; the module's own eps reads as configured",
)
def add_outside_root(injection: Injection) -> None:
    """The norm divides by deviation + ``value``."""
    value = injection.number

    def build_for(norm: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        def forward(hidden: torch.Tensor) -> torch.Tensor:
            wide = _centred(norm, hidden)
            # A constant row has no deviation, and the root no slope there.
            deviation = wide.pow(2).mean(-1, keepdim=True).clamp(min=1e-12).sqrt()
            result = norm.weight * (wide / (deviation + value)).to(hidden.dtype)
            bias = getattr(norm, "bias", None)
            return result if bias is None else result + bias

        return lambda original: forward

    for norm in norms_of(injection):
        override_forward(injection.undo, norm, build_for(norm))


@LAYERNORM_WAYS.operator(
    "NLP",
    "regularization",
    "L2 penalty on norm parameters",
    parameter="coefficient",
    values=(0.01, 0.1, 1.0),
    happens="`loss + l2 * sum(p.pow(2).sum() for p in model.parameters())`: the optimizer's "
    "groups spare the norms, the penalty does not",
)
def penalise_norms(injection: Injection) -> None:
    """Gamma and beta are pulled to zero through their gradients."""
    parameters = [p for norm in norms_of(injection) for p in norm.parameters()]
    penalise(injection.undo, injection.training_optimizer, parameters, injection.number)
