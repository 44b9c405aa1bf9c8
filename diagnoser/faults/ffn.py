"""FFN faults: weights scaled or badly initialised, dead neurons, wrong activation or decay."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from diagnoser.faults.fault import Clean, Injection, Table, Value
from diagnoser.faults.override import edit_parameter, override_forward, shadow_submodule
from diagnoser.faults.parameter_groups import decays, own_decay

FFN = Table("ffn")

# What AdamW does where a script does not say otherwise.
DEFAULT_DECAY = 0.01


@FFN.operator(
    "FSW",
    "weight_scaling",
    "scale the FFN weights",
    parameter="factor",
    values=(0.5, 2.0, 5.0),
)
def scale_weights(injection: Injection) -> None:
    """All weight matrices of the FFN are multiplied by ``factor``, once."""
    factor = injection.number
    for block in injection.blocks:
        for linear in (*block.ffn_in, block.ffn_out):
            edit_parameter(injection.undo, linear.weight, lambda data: data.mul_(factor))  # type: ignore[arg-type]


@FFN.operator(
    "FDN",
    "neuron_dropout",
    "drop a share of FFN neurons for good",
    parameter="percentage",
    values=(0.1, 0.3, 0.5),
)
def drop_neurons(injection: Injection) -> None:
    """The same hidden neurons are zero in every step, before the narrowing map."""
    share = injection.number
    for block in injection.blocks:
        weight = block.ffn_out.weight
        width = block.ffn_in[0].weight.numel() // injection.anatomy.embedding.embedding_dim
        generator = torch.Generator().manual_seed(injection.fault.seed + block.index)
        dead = torch.randperm(width, generator=generator)[: max(1, round(share * width))]
        kept = torch.ones(width)
        kept[dead] = 0.0
        kept = kept.to(weight.device, weight.dtype)

        def build(real: nn.Module, kept: torch.Tensor = kept) -> Callable[..., Any]:
            return lambda hidden: real(hidden * kept)

        shadow_submodule(injection.undo, block.ffn_out.holder, block.ffn_out.name, build)


_ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "ReLU": F.relu,
    "GELU": F.gelu,
    "Tanh": torch.tanh,
    "Sigmoid": torch.sigmoid,
}


def configured_activation(config: object) -> str:
    """The activation the config asks for, in transformers' spelling."""
    return str(getattr(config, "activation_function", None) or getattr(config, "hidden_act", ""))


def _other_activations(clean: Clean) -> tuple[Value, ...]:
    asked = configured_activation(clean.anatomy.config).lower()
    # gelu_new, gelu_fast, quick_gelu … are GELU up to rounding or a coarse approximation of it.
    return tuple(
        name
        for name in _ACTIVATIONS
        if name.lower() != asked and not (name == "GELU" and "gelu" in asked)
    )


@FFN.operator(
    "FCA",
    "activation_function",
    "different activation function",
    parameter="activation",
    values=tuple(_ACTIVATIONS),
    choices=_other_activations,
)
def change_activation(injection: Injection) -> None:
    """The activation computes another function than the config's."""
    function = _ACTIVATIONS[str(injection.fault.value)]
    for block in injection.blocks:
        override_forward(injection.undo, block.activation, lambda _: function)


_DECAYS: tuple[Value, ...] = (0.0, 0.01, 0.1)


def _other_decays(clean: Clean) -> tuple[Value, ...]:
    parameters = [p for block in clean.anatomy.blocks for p in block.ffn_parameters]
    same = {DEFAULT_DECAY} if clean.optimizer is None else decays(clean.optimizer, parameters)
    return tuple(value for value in _DECAYS if value not in same)


@FFN.operator(
    "FRG",
    "regularization",
    "different weight decay",
    parameter="scheme",
    values=_DECAYS,
    choices=_other_decays,
)
def change_decay(injection: Injection) -> None:
    """The FFN parameters sit in an optimizer group of their own with another weight decay."""
    parameters = [p for block in injection.blocks for p in block.ffn_parameters]
    own_decay(injection.undo, injection.training_optimizer, parameters, injection.number)


@FFN.operator(
    "FWI",
    "weight_initialization",
    "different weight initialiser",
    parameter="init",
    values=("zeros", "uniform", "constant_one"),
    moment="start",
)
def initialise_badly(injection: Injection) -> None:
    """FFN weight matrices start at 0, at 1, or uniform in [0, 1) (torch's plain ``uniform_``)."""
    generator = torch.Generator().manual_seed(injection.fault.seed)

    def uniform(data: torch.Tensor) -> None:
        data.copy_(torch.rand(data.shape, generator=generator))

    fill: dict[str, Callable[[torch.Tensor], Any]] = {
        "zeros": lambda data: data.zero_(),
        "uniform": uniform,
        "constant_one": lambda data: data.fill_(1.0),
    }
    for block in injection.blocks:
        for linear in (*block.ffn_in, block.ffn_out):
            edit_parameter(injection.undo, linear.weight, fill[str(injection.fault.value)])
