"""Optimizer groups as scripts get them wrong: another weight decay for some, others left out."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import Any

from torch import nn
from torch.optim import Optimizer

from diagnoser.faults.override import wrap_step

Group = dict[str, Any]


def decays(optimizer: Optimizer, parameters: Iterable[nn.Parameter]) -> set[float]:
    """The weight decays that the optimizer's groups give to these parameters."""
    wanted = {id(parameter) for parameter in parameters}
    return {
        float(group.get("weight_decay", 0.0))
        for group in optimizer.param_groups
        if any(id(parameter) in wanted for parameter in group["params"])
    }


class _Split:
    """The optimizer's groups with some parameters moved to groups of another weight decay."""

    def __init__(self, optimizer: Optimizer, wanted: set[int], decay: float) -> None:
        self.optimizer = optimizer
        self.wanted = wanted
        self.decay = decay
        self.moved: list[tuple[Group, list[nn.Parameter], Group]] = []

    def make(self) -> None:
        for group in list(self.optimizer.param_groups):
            inside = [p for p in group["params"] if id(p) in self.wanted]
            if not inside or group.get("weight_decay") == self.decay:
                continue
            everything = list(group["params"])
            own = {**group, "params": inside, "weight_decay": self.decay}
            group["params"][:] = [p for p in everything if id(p) not in self.wanted]
            self.optimizer.param_groups.append(own)
            self.moved.append((group, everything, own))

    def merge(self) -> None:
        for group, everything, own in reversed(self.moved):
            group["params"][:] = everything
            self.optimizer.param_groups[:] = [
                g for g in self.optimizer.param_groups if g is not own
            ]
        self.moved.clear()

    def level(self) -> None:
        """Keep the groups, give the moved parameters their parent's decay again."""
        for group, _, own in self.moved:
            own["weight_decay"] = group["weight_decay"]


def _scheduled(optimizer: Optimizer) -> bool:
    return hasattr(optimizer.step, "_wrapped_by_lr_sched")


def own_decay(
    undo: ExitStack, optimizer: Optimizer, parameters: Iterable[nn.Parameter], decay: float
) -> None:
    """Give ``parameters`` a group of their own with weight decay ``decay``.

    Learning rate schedulers insist on the number of groups they were made for: where one is at
    work already, the groups are split during ``optimizer.step`` only; where one came later, the
    groups stay split at the end and get their old decay back.
    Raises ValueError where every parameter has that decay already.
    """
    wanted = {id(parameter) for parameter in parameters}
    if not any(
        group.get("weight_decay") != decay and any(id(p) in wanted for p in group["params"])
        for group in optimizer.param_groups
    ):
        raise ValueError(
            f"The parameters already have weight decay {decay}; draw() with optimizer= avoids that."
        )
    split = _Split(optimizer, wanted, decay)
    if not _scheduled(optimizer):
        split.make()
        undo.callback(lambda: split.level() if _scheduled(optimizer) else split.merge())
        return

    def build(original: Callable[..., Any]) -> Callable[..., Any]:
        def step(*args: Any, **kwargs: Any) -> Any:
            split.make()
            try:
                return original(*args, **kwargs)
            finally:
                split.merge()

        return step

    wrap_step(undo, optimizer, build)


def leave_out(undo: ExitStack, optimizer: Optimizer, parameters: Iterable[nn.Parameter]) -> None:
    """Take ``parameters`` out of all groups, as if the optimizer had never been given them.

    Raises ValueError where no group holds any of them.
    """
    unwanted = {id(parameter) for parameter in parameters}
    held = [
        group for group in optimizer.param_groups if any(id(p) in unwanted for p in group["params"])
    ]
    if not held:
        raise ValueError("No group of the optimizer holds these parameters: none can be left out.")
    for group in held:
        everything = list(group["params"])
        group["params"][:] = [p for p in everything if id(p) not in unwanted]
        undo.callback(group["params"].__setitem__, slice(None), everything)
