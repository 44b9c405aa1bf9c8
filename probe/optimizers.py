"""The optimizers a training script hands over, and what their groups say."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn


def given(optimizer: Any) -> list[torch.optim.Optimizer]:
    """The torch optimizers in what was handed over: one, several, wrapped, or none.

    A list, tuple or dict of them is taken apart; wrappers (Accelerate's) keep theirs as
    ``optimizer``; what is no torch optimizer has no hooks and is left out.
    """
    if isinstance(optimizer, Mapping):
        optimizer = list(optimizer.values())
    if isinstance(optimizer, (list, tuple, set, frozenset)):
        several = [found for one in optimizer for found in given(one)]
        return list({id(found): found for found in several}.values())
    while optimizer is not None and "optimizer" in getattr(optimizer, "__dict__", {}):
        optimizer = optimizer.optimizer
    return [optimizer] if isinstance(optimizer, torch.optim.Optimizer) else []


def parameters_of(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    """All parameters of its groups, in order."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def rate_of(group: Mapping[str, Any]) -> float | None:
    """A group's learning rate; None where it is kept on a GPU, for which one would have to wait."""
    rate = group.get("lr", 0.0)
    return None if isinstance(rate, torch.Tensor) and rate.is_cuda else float(rate)


def highest_rate(optimizers: Iterable[torch.optim.Optimizer]) -> float:
    """The largest learning rate of any group; NaN without one. Rates on a GPU are left out."""
    highest = math.nan
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            rate = group.get("lr", 0.0)
            if not isinstance(rate, float):
                rate = rate_of(group)
            if group["params"] and rate is not None and not rate <= highest:
                highest = rate
    return highest


def loss_scale(optimizer: torch.optim.Optimizer) -> torch.Tensor | None:
    """The scale that a fused optimizer under a GradScaler divides by inside its step."""
    scale = getattr(optimizer, "grad_scale", None)
    return scale if isinstance(scale, torch.Tensor) else None


def held_back(optimizer: torch.optim.Optimizer) -> torch.Tensor | None:
    """1.0 where a fused optimizer was called and will do nothing: gradients were not finite.

    A copy, on the gradients' device; None where no scaler is at work.
    """
    found = getattr(optimizer, "found_inf", None)
    return found.detach().clone() if isinstance(found, torch.Tensor) else None
