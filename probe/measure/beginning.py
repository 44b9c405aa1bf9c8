"""What a run's weights began with. How weights were made is judged by the first sample: training
moves them apart from each other, and rightly so."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from probe.anatomy import LayerParts
from probe.recognition import gamma_of

_ALIKE = 0.01
"""Spread of a norm's weights, which are made all equal, after a few steps at most."""


def new_weights(layers: Iterable[LayerParts]) -> torch.Tensor | None:
    """Whether most norms' weights are still as they are made, 0-d bool; None without norms.

    A model that was trained before, or a run that goes on from a checkpoint, begins with others.
    """
    norms: set[nn.Module] = {norm for layer in layers for norm in layer.norms}
    gammas = [gamma.detach().float() for n in norms if (gamma := gamma_of(n)) is not None]
    if not gammas:
        return None
    spreads = [g.std(correction=0) / g.mean().abs().clamp_min(1.0) for g in gammas]
    return torch.stack(spreads).median() < _ALIKE


def left_of_first(
    begun: dict[str, torch.Tensor], key: str, value: torch.Tensor, new: torch.Tensor | None
) -> torch.Tensor:
    """``value`` as far as it was there in the first sample: between 0 and what it was then.

    ``begun``: what is kept of the first sample, by ``key``. ``new``: asked in the first sample,
    whether the weights are; None: nothing speaks against it. NaN where they were not, for what
    they began with is not known.
    """
    known = value if new is None else torch.where(new, value, torch.nan)
    first = begun.setdefault(key, known)
    return value.minimum(first.clamp_min(0.0)).maximum(first.clamp_max(0.0))
