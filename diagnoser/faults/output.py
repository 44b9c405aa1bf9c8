"""Output faults: logits scaled, classes zeroed or mismapped, head re-initialised."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from diagnoser.faults.fault import Injection, Table
from diagnoser.faults.override import edit_parameter, override_forward

OUTPUT = Table("output")


@OUTPUT.operator(
    "OSL",
    "output_scaling",
    "scale the logits",
    layered=False,
    parameter="factor",
    values=(0.5, 2.0, 5.0),
)
def scale_logits(injection: Injection) -> None:
    """The output projection's result is multiplied by ``factor``."""
    factor = injection.number

    def build(original: Callable[..., Any]) -> Callable[..., Any]:
        return lambda input: factor * original(input)

    override_forward(injection.undo, injection.anatomy.head, build)


def some_classes(count: int, which: str, seed: int) -> torch.Tensor:
    """Class indices: a tenth (at least one) drawn by seed, every second one, or all."""
    if which == "rare":
        generator = torch.Generator().manual_seed(seed)
        return torch.randperm(count, generator=generator)[: max(1, count // 10)]
    return torch.arange(0, count, 2 if which == "balanced" else 1)


@OUTPUT.operator(
    "OZR",
    "output_dimension",
    "zero output rows of some classes",
    layered=False,
    parameter="classes",
    values=("rare", "balanced", "all"),
)
def zero_classes(injection: Injection) -> None:
    """The logits of some classes are always 0; a tied embedding table keeps its rows."""
    anatomy = injection.anatomy
    zeroed = some_classes(anatomy.classes, str(injection.fault.value), injection.fault.seed)
    kept = torch.ones(anatomy.classes)
    kept[zeroed] = 0.0
    weight: Any = anatomy.head.weight
    kept = kept.to(weight.device, weight.dtype)

    def build(original: Callable[..., Any]) -> Callable[..., Any]:
        return lambda input: original(input) * kept

    override_forward(injection.undo, anatomy.head, build)


@OUTPUT.operator(
    "ORI",
    "output_type",
    "re-initialise the output projection",
    layered=False,
    parameter="init",
    values=("zeros", "xavier", "kaiming"),
)
def reinitialise_head(injection: Injection) -> None:
    """The projection's weight starts anew, with it the embedding table where the two are tied."""
    generator = torch.Generator().manual_seed(injection.fault.seed)

    def change(data: torch.Tensor) -> None:
        fresh = torch.zeros(data.shape)
        if injection.fault.value == "xavier":
            nn.init.xavier_uniform_(fresh, generator=generator)
        elif injection.fault.value == "kaiming":
            nn.init.kaiming_normal_(fresh, generator=generator)
        data.copy_(fresh)

    edit_parameter(injection.undo, injection.anatomy.head.weight, change)  # type: ignore[arg-type]


@OUTPUT.operator(
    "OOD",
    "output_dimension",
    "wrong output dimension or mapping",
    layered=False,
    parameter="dim_delta",
    values=(-1, 1, 2),
)
def misplace_classes(injection: Injection) -> None:
    """Class c gets the logit of class c + ``dim_delta``; those beyond an end share its logit.

    The projection so has as many columns as the loss expects, but fewer distinct ones.
    """
    anatomy = injection.anatomy
    weight: Any = anatomy.head.weight
    source = torch.arange(anatomy.classes, device=weight.device) + int(injection.number)
    source = source.clamp(0, anatomy.classes - 1)

    def build(original: Callable[..., Any]) -> Callable[..., Any]:
        return lambda input: original(input)[..., source]

    override_forward(injection.undo, anatomy.head, build)
