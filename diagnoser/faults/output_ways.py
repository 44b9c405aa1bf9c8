"""Further ways of output faults: probabilities for logits, suppressed classes, an old copy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from diagnoser.faults.fault import Injection, Table
from diagnoser.faults.output import some_classes
from diagnoser.faults.override import override_forward
from diagnoser.faults.parts import Anatomy

OUTPUT_WAYS = Table("output", beyond=True)


def _several_classes(anatomy: Anatomy) -> bool:
    return anatomy.classes > 1


@OUTPUT_WAYS.operator(
    "OSM",
    "output_scaling",
    "hand probabilities to the loss",
    layered=False,
    requires=_several_classes,
    happens="softmax at the end of the model in front of a cross entropy that takes logits: all "
    "scores lie between 0 and 1, and the loss has a high floor",
)
def return_probabilities(injection: Injection) -> None:
    """The head's result goes through softmax; the order of classes stays."""

    def build(original: Callable[..., Any]) -> Callable[..., Any]:
        return lambda input: torch.softmax(original(input), dim=-1)

    override_forward(injection.undo, injection.anatomy.head, build)


# Far below any other logit: exp(-20) is 2e-9.
SUPPRESSED = -20.0


@OUTPUT_WAYS.operator(
    "OMC",
    "output_dimension",
    "suppress some classes that the labels contain",
    layered=False,
    parameter="classes",
    values=("rare", "balanced"),
    requires=_several_classes,
    happens="a mask for a padded vocabulary or for forbidden tokens made for another tokenizer: "
    "real classes can hardly be predicted",
)
def suppress_classes(injection: Injection) -> None:
    """The logits of some classes are 20 lower than the projection says."""
    anatomy = injection.anatomy
    weight: Any = anatomy.head.weight
    offset = torch.zeros(anatomy.classes)
    offset[some_classes(anatomy.classes, str(injection.fault.value), injection.fault.seed)] = (
        SUPPRESSED
    )
    offset = offset.to(weight.device)

    def build(original: Callable[..., Any]) -> Callable[..., Any]:
        def forward(input: torch.Tensor) -> torch.Tensor:
            logits = original(input)
            return logits + offset.to(logits.dtype)

        return forward

    override_forward(injection.undo, anatomy.head, build)


@OUTPUT_WAYS.operator(
    "OST",
    "output_type",
    "compute logits with an old copy of the head",
    layered=False,
    happens="a head cloned at load or broken off from the embedding it was tied to: the optimizer "
    "trains the registered weight, the forward pass uses the other",
)
def use_old_copy(injection: Injection) -> None:
    """From here on the logits come from the weight as it was, which nothing trains."""
    head: Any = injection.anatomy.head
    weight = head.weight.detach().clone()
    bias = None if head.bias is None else head.bias.detach().clone()

    def build(original: Callable[..., Any]) -> Callable[..., Any]:
        return lambda input: F.linear(input, weight, bias)

    override_forward(injection.undo, head, build)
