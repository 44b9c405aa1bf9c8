"""Sees that gradients were thrown away before their optimizer stepped: a skipped step.

A gradient scaler that finds gradients which are not finite does not call the optimizer, so no hook
tells; the loop then clears the gradients as after any step. That is what can be seen: a backward
reached a parameter, no step followed, and its gradient is gone or begins afresh.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn

from probe.listening import Hook

_NONE = -1


class Skips:
    """Watches the first and the last parameter of each optimizer.

    ``losses`` tells how many micro-batches the step under way has had.
    """

    def __init__(self, groups: Sequence[Sequence[nn.Parameter]], losses: Callable[[], int]) -> None:
        self._losses = losses
        self._watched: list[nn.Parameter] = []
        self._versions: list[int] = []
        self._before = 0
        """Micro-batches up to the last backward."""
        self._cleared: int | None = None
        """The same, up to the last backward before gradients were seen to begin afresh."""
        self._handles: list[Any] = []
        for parameters in groups:
            trained = [p for p in parameters if p.requires_grad and p.is_leaf]
            for parameter in dict.fromkeys((*trained[:1], *trained[-1:])):
                self._watch(parameter)

    def _watch(self, parameter: nn.Parameter) -> None:
        at = len(self._watched)
        # A tensor of an unusual kind may take no hooks; its optimizer's skips then go unseen.
        with contextlib.suppress(Exception):
            hook = Hook(partial(self._reached, at))
            self._handles.append(parameter.register_post_accumulate_grad_hook(hook))
            self._watched.append(parameter)
            self._versions.append(_NONE)

    def _reached(self, at: int, parameter: torch.Tensor) -> None:
        """A backward has added to the gradient. Adding in place raises the tensor's version."""
        try:
            gradient = parameter.grad
            if gradient is None or gradient.requires_grad or gradient.is_sparse:
                return  # consumed already, or added to out of place
            before, now = self._versions[at], gradient._version
            self._versions[at] = now
            if before != _NONE and now <= before and self._cleared is None:
                self._cleared = self._before
            else:
                self._before = self._losses()
        except Exception:
            return  # a gradient of an unusual kind: skips then go unseen

    def over(self) -> None:
        """The step is over: gradients were used, and may be cleared from here on."""
        self._versions = [_NONE] * len(self._watched)
        self._cleared = None

    def before_step(self) -> int | None:
        """Ask when an optimizer is about to step. How many micro-batches went into gradients that
        were thrown away before the last backward; None for nothing."""
        found, self._cleared = self._cleared, None
        return found

    def before_forward(self) -> int | None:
        """Ask when a forward begins: the same, and also for gradients that are gone by now."""
        found, self._cleared = self._cleared, None
        if found is not None:
            return found
        for at, parameter in enumerate(self._watched):
            if self._versions[at] != _NONE and parameter.grad is None:
                return self._losses()
        return None

    def remove(self) -> None:
        """Take the hooks off."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._watched.clear()
        self._versions.clear()
