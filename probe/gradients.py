"""The gradients of one step, as norms: what the optimizers are about to use, read where they are.

They are read in each optimizer's step pre-hook. Where the weights are updated inside the backward
there is no such moment: there each gradient is read on its way to its parameter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence

from probe.listening import Hook
from probe.measure.numbers import TINY, strided
from probe.quiet import quiet
from probe.shards import is_sharded, local

_SAMPLED = 512
"""Elements of each gradient that are looked at one by one."""
_LIMITED_TOGETHER = 3
"""Parameters that a limit on every element shows in, at least."""


class Gradients:
    """Norms by parameter, and what a sample of the elements shows; no gradient itself is kept."""

    def __init__(self) -> None:
        self._norms: dict[int, torch.Tensor] = {}
        self._products: dict[int, torch.Tensor] = {}
        self._largest: list[torch.Tensor] = []
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
        by_device: dict[torch.device, list[nn.Parameter]] = {}
        for parameter in dense:
            by_device.setdefault(parameter.device, []).append(parameter)
        for same in by_device.values():
            self._look(same)

    def _look(self, parameters: list[nn.Parameter]) -> None:
        """Compare a sample of the gradients' elements with the weights', and with the largest."""
        kept, gradients, weights = [], [], []
        for parameter in parameters:
            assert parameter.grad is not None
            gradient, weight = local(parameter.grad.detach()), local(parameter.detach())
            if gradient.is_contiguous() and weight.is_contiguous() and gradient.numel():
                kept.append(parameter)
                gradients.append(strided(gradient, _SAMPLED).float())
                weights.append(strided(weight, _SAMPLED).float())
        if not kept:
            return
        ours, own = (pad_sequence(samples, batch_first=True) for samples in (gradients, weights))
        products = torch.stack([ours * own, ours.square(), own.square()]).sum(dim=-1)
        # A sample stands for all elements, so that large parameters count for what they are.
        pairs = zip(kept, gradients, strict=True)
        shares = [local(p.detach()).numel() / sample.numel() for p, sample in pairs]
        weighed = torch._foreach_mul(list(products.unbind(dim=1)), shares)
        self._products.update(zip(map(id, kept), weighed, strict=True))
        size = ours.abs()
        largest = size.amax()
        at_it = (size == largest).sum(dim=1)
        counts = at_it.sum(), (at_it > 0).sum(), (size > 0).sum()
        self._largest.append(torch.stack([largest, *(count.float() for count in counts)]))

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

    def along_weights(
        self, groups: Mapping[str, Iterable[nn.Parameter]]
    ) -> dict[str, torch.Tensor]:
        """Cosine of the gradients and the weights of groups of parameters, from a sample, 0-d.

        A group of which none was looked at is left out; NaN where its gradients or weights are
        zero.
        """
        known = {
            name: [self._products[id(p)] for p in parameters if id(p) in self._products]
            for name, parameters in groups.items()
        }
        sums = {name: torch.stack(own).sum(dim=0) for name, own in known.items() if own}
        if not sums:
            return {}
        device = next(iter(sums.values())).device
        every = torch.stack([found.to(device) for found in sums.values()])
        product, gradients, weights = every.unbind(dim=1)
        size = (gradients * weights).sqrt()
        cosines = torch.where(size > TINY, product / size.clamp_min(TINY), torch.nan)
        return dict(zip(sums, cosines.unbind(), strict=True))

    def limited(self) -> torch.Tensor | None:
        """Share of the elements that are not zero that stand at the largest magnitude, one aside:
        0-d, from a sample. 0 where all that do are of one parameter or two: a weight whose inputs
        are saturated and its bias have equal ones too. NaN where all are zero; None where none was
        looked at."""
        if not self._largest:
            return None
        device = self._largest[0].device
        largest, *counts = torch.stack([row.to(device) for row in self._largest]).T
        at_limit = (largest == largest.amax()).float()
        there, parameters, total = (counts[0] * at_limit, counts[1] * at_limit, counts[2])
        share = (there.sum() - 1.0) / total.sum().clamp_min(1.0)
        limited = torch.where(parameters.sum() >= _LIMITED_TOGETHER, share, 0.0)
        return torch.where(total.sum() > 0, limited, torch.nan)

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
