"""What a training loop does to gradients between backward and the optimizer's step."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from diagnoser.faults.override import wrap_step


def before_step(
    undo: ExitStack,
    optimizer: Optimizer,
    parameters: Iterable[nn.Parameter],
    change: Callable[[torch.Tensor, torch.Tensor], Any],
) -> None:
    """Run ``change(weight, gradient)``, in place, right before each optimizer step.

    Parameters without a gradient are left alone.
    """
    own = list(parameters)

    def build(step: Callable[..., Any]) -> Callable[..., Any]:
        def changed_step(*args: Any, **kwargs: Any) -> Any:
            with torch.no_grad():
                for parameter in own:
                    if parameter.grad is not None:
                        change(parameter.data, parameter.grad)
            return step(*args, **kwargs)

        return changed_step

    wrap_step(undo, optimizer, build)


def penalise(
    undo: ExitStack, optimizer: Optimizer, parameters: Iterable[nn.Parameter], coefficient: float
) -> None:
    """Add ``coefficient`` times the weight to its gradient: coefficient/2 · ‖w‖² in the loss.

    An adaptive optimizer rescales this penalty with the gradient, which decoupled decay escapes.
    """

    def add(weight: torch.Tensor, gradient: torch.Tensor) -> None:
        gradient.add_(weight, alpha=coefficient)

    before_step(undo, optimizer, parameters, add)
