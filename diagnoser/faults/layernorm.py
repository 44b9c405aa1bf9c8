"""Norm faults: gamma, beta, epsilon and weight decay of LayerNorm and RMSNorm."""

from __future__ import annotations

import torch
from torch import nn

from diagnoser.faults.fault import Clean, Injection, Table, Value
from diagnoser.faults.ffn import DEFAULT_DECAY
from diagnoser.faults.override import edit_parameter, set_attribute
from diagnoser.faults.parameter_groups import decays, own_decay
from diagnoser.faults.parts import Anatomy

LAYERNORM = Table("layernorm")


def norms_of(injection: Injection) -> list[nn.Module]:
    """The attention and FFN norms of the blocks the fault sits in."""
    return [norm for block in injection.blocks for norm in block.norms]


@LAYERNORM.operator(
    "NSG", "scale_parameter", "scale gamma", parameter="factor", values=(0.5, 2.0, 5.0)
)
def scale_gamma(injection: Injection) -> None:
    """Gamma of the layers' norms is multiplied by ``factor``, once."""
    factor = injection.number

    def change(data: torch.Tensor) -> None:
        data.mul_(factor)

    for norm in norms_of(injection):
        edit_parameter(injection.undo, norm.weight, change)  # type: ignore[arg-type]


@LAYERNORM.operator("NZG", "scale_parameter", "zero gamma")
def zero_gamma(injection: Injection) -> None:
    """Gamma of the layers' norms is set to zero, once."""

    def change(data: torch.Tensor) -> None:
        data.zero_()

    for norm in norms_of(injection):
        edit_parameter(injection.undo, norm.weight, change)  # type: ignore[arg-type]


def has_beta(anatomy: Anatomy) -> bool:
    """Whether the norms have a bias; RMSNorm has none."""
    return getattr(anatomy.blocks[0].norms[0], "bias", None) is not None


@LAYERNORM.operator(
    "NSB",
    "bias_parameter",
    "shift beta",
    parameter="shift",
    values=(0.5, 1.0, 2.0),
    families=("bert", "gpt2"),
    requires=has_beta,
)
def shift_beta(injection: Injection) -> None:
    """``shift`` is added to every element of beta, once. RMSNorm has no beta."""
    shift = injection.number

    def change(data: torch.Tensor) -> None:
        data.add_(shift)

    for norm in norms_of(injection):
        edit_parameter(injection.undo, norm.bias, change)  # type: ignore[arg-type]


_EPSILONS: tuple[Value, ...] = (0.0001, 0.01, 1.0)


def epsilon_name(norm: nn.Module) -> str:
    """LayerNorm reads ``eps``, Llama's RMSNorm ``variance_epsilon``."""
    return "variance_epsilon" if hasattr(norm, "variance_epsilon") else "eps"


def _other_epsilons(clean: Clean) -> tuple[Value, ...]:
    norm = clean.anatomy.blocks[0].norms[0]
    own = getattr(norm, epsilon_name(norm))
    return tuple(value for value in _EPSILONS if value != own)


@LAYERNORM.operator(
    "NCE",
    "stability_parameter",
    "different epsilon",
    parameter="value",
    values=_EPSILONS,
    choices=_other_epsilons,
)
def change_epsilon(injection: Injection) -> None:
    """The norms add another epsilon to the variance."""
    for norm in norms_of(injection):
        set_attribute(injection.undo, norm, epsilon_name(norm), injection.number)


_DECAYS: tuple[Value, ...] = (0.01, 0.1, 1.0)


def _other_decays(clean: Clean) -> tuple[Value, ...]:
    parameters = [
        p for block in clean.anatomy.blocks for norm in block.norms for p in norm.parameters()
    ]
    same = {DEFAULT_DECAY} if clean.optimizer is None else decays(clean.optimizer, parameters)
    return tuple(value for value in _DECAYS if value not in same)


@LAYERNORM.operator(
    "NWD",
    "regularization",
    "weight decay on norm parameters",
    parameter="coefficient",
    values=_DECAYS,
    choices=_other_decays,
)
def decay_norms(injection: Injection) -> None:
    """Gamma and beta sit in an optimizer group of their own that decays them."""
    parameters = [p for norm in norms_of(injection) for p in norm.parameters()]
    own_decay(injection.undo, injection.training_optimizer, parameters, injection.number)
