"""Waits until one of several modules is called in training: which of them the training calls.

Modules hold each other: a trainer's module holds the model, which holds its own base. What is
called first, of those that hold what is trained, is the model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from probe.listening import Hook

Found = Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], None]


class FirstCalled:
    """Hooks on ``modules`` until one is called; then ``found(module, args, kwargs)``, once.

    It is told before the module's own forward begins.
    """

    def __init__(self, modules: Iterable[nn.Module], found: Found) -> None:
        self._found = found
        self._handles = [
            module.register_forward_pre_hook(Hook(self._called), with_kwargs=True)
            for module in modules
        ]

    def remove(self) -> None:
        """Stop waiting."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _called(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        if self._handles and module.training and torch.is_grad_enabled():
            self.remove()
            self._found(module, args, kwargs)


def holding_most(
    modules: Iterable[nn.Module], trained: set[int], share: float = 1.0
) -> list[nn.Module]:
    """Those that hold the most of the parameters in ``trained``, by id, or ``share`` of the most.

    Those that hold more modules come first.
    """
    found = []
    for module in modules:
        held = sum(id(p) in trained for p in module.parameters())
        if held:
            found.append((held, module))
    most = max((held for held, _ in found), default=0)
    chosen = [module for held, module in found if held >= share * most]
    return sorted(chosen, key=lambda module: -sum(1 for _ in module.modules()))
