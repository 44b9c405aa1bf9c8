"""Sees that gradients were thrown away before their optimizer stepped: a skipped step.

A gradient scaler that finds gradients which are not finite does not call the optimizer, so no hook
tells; the loop then clears the gradients as after any step. That is what can be seen: a backward
reached a parameter, no step followed, and its gradient is gone or begins afresh.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import nn

from probe.listening import Hook

_FRESH = -1


class Skips:
    """Watches the first and the last parameter of each optimizer, or of the model without any."""

    def __init__(self, groups: Sequence[Sequence[nn.Parameter]]) -> None:
        self._watched: list[tuple[int, nn.Parameter]] = []
        self._versions: list[int] = []
        self._skipped: set[int] = set()
        self._handles: list[Any] = []
        for place, parameters in enumerate(groups):
            trained = [p for p in parameters if p.requires_grad and p.is_leaf]
            for parameter in dict.fromkeys((*trained[:1], *trained[-1:])):
                self._watch(place, parameter)

    def _watch(self, place: int, parameter: nn.Parameter) -> None:
        at = len(self._watched)
        # A tensor of an unusual kind may take no hooks; its optimizer's skips then go unseen.
        with contextlib.suppress(Exception):
            hook = Hook(partial(self._reached, at))
            self._handles.append(parameter.register_post_accumulate_grad_hook(hook))
            self._watched.append((place, parameter))
            self._versions.append(_FRESH)

    def _reached(self, at: int, parameter: torch.Tensor) -> None:
        """A backward has added to the gradient. Adding in place raises the tensor's version."""
        with contextlib.suppress(Exception):
            gradient, before = parameter.grad, self._versions[at]
            if gradient is None or gradient.is_sparse or gradient.requires_grad:
                return  # consumed already, or added to out of place
            self._versions[at] = gradient._version
            if before != _FRESH and gradient._version <= before:
                self._skipped.add(self._watched[at][0])

    def stepped(self, place: int) -> None:
        """The optimizer has used its gradients: from here on they may be cleared."""
        for at, (owner, _) in enumerate(self._watched):
            if owner == place:
                self._versions[at] = _FRESH
        self._skipped.discard(place)

    def found(self) -> set[int]:
        """At the start of a forward: optimizers whose gradients were thrown away; told once."""
        skipped, self._skipped = self._skipped, set()
        for at, (place, parameter) in enumerate(self._watched):
            if self._versions[at] != _FRESH and parameter.grad is None:
                skipped.add(place)
        for at, (place, parameter) in enumerate(self._watched):
            if place in skipped and parameter.grad is None:
                self._versions[at] = _FRESH
        return skipped

    def remove(self) -> None:
        """Take the hooks off."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._watched.clear()
        self._versions.clear()
