"""The gradients of one step, as norms: what the optimizers are about to use, read where they are.

They are read in each optimizer's step pre-hook. Where the weights are updated inside the backward
there is no such moment: there each gradient is read on its way to its parameter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import nn

from probe.listening import Hook
from probe.quiet import quiet
from probe.shards import is_sharded, local


class Gradients:
    """Norms by parameter; no gradient itself is kept."""

    def __init__(self) -> None:
        self._norms: dict[int, torch.Tensor] = {}
        self._live: set[int] = set()
        self._partial = False
        self._handles: list[Any] = []

    def read(self, parameters: Iterable[nn.Parameter], scale: torch.Tensor | None) -> None:
        """Take the norms of what stands in ``.grad``; ``scale``: what they still hold, if any."""
        present = [p for p in parameters if p.grad is not None]
        self._live.update(id(p) for p in present)
        dense = [p for p in present if p.grad is not None and not p.grad.is_sparse]
        if not dense:
            return
        gradients = [p.grad.detach() for p in dense if p.grad is not None]
        self._partial = self._partial or any(map(is_sharded, gradients))
        norms = torch._foreach_norm([local(gradient) for gradient in gradients])
        for parameter, norm in zip(dense, norms, strict=True):
            self._norms[id(parameter)] = norm.float() if scale is None else norm.float() / scale

    def listen(
        self, parameters: Iterable[nn.Parameter], on_error: Callable[[BaseException], None]
    ) -> None:
        """Read the gradients as the coming backward brings them, until :meth:`remove`.

        What a parameter accumulated counts; where that is gone already, used up by a hook that
        came first, what was about to be added.
        """

        def arrives(parameter: nn.Parameter, gradient: torch.Tensor) -> None:
            try:
                if not gradient.is_sparse:
                    with quiet():
                        self._partial = self._partial or is_sharded(gradient)
                        self._norms[id(parameter)] = local(gradient.detach()).norm().float()
                self._live.add(id(parameter))
            except Exception as error:
                on_error(error)

        def added(parameter: nn.Parameter) -> None:
            try:
                with quiet():
                    self.read([parameter], None)
            except Exception as error:
                on_error(error)

        for parameter in parameters:
            if parameter.requires_grad and parameter.is_leaf:
                self._handles += [
                    parameter.register_hook(Hook(partial(arrives, parameter))),
                    parameter.register_post_accumulate_grad_hook(Hook(added)),
                ]

    def remove(self) -> None:
        """Take the hooks off."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def norm(self, parameter: nn.Parameter) -> torch.Tensor | None:
        """Norm of a parameter's gradient, float32, 0-d; None where it has none or a sparse one.

        Of a gradient that is spread over ranks, the norm of this rank's part.
        """
        return self._norms.get(id(parameter))

    def reached(self, parameter: nn.Parameter) -> bool:
        """Whether it had a gradient of any kind."""
        return id(parameter) in self._live

    def total(self) -> torch.Tensor | None:
        """Norm over all of them; None where there is none, or only this rank's part of some."""
        norms = list(self._norms.values())
        if not norms or self._partial:
            return None
        device = norms[0].device
        return torch.stack([norm.to(device) for norm in norms]).norm()
