"""How the representation changes from layer to layer."""

from __future__ import annotations

import torch

from probe.captured import LayerCapture
from probe.measure.sampled import Sampled, Values
from probe.schema import Metric

METRICS = (
    Metric(
        "cka",
        ("drift",),
        "share",
        "",
        "linear CKA of this layer's and the previous one's hidden states on sampled tokens, centred",
        "steady",
        source="DEFault++",
    ),
)


def measure(sampled: Sampled, previous: LayerCapture, kept: LayerCapture) -> Values:
    """Metrics of site ``drift@l``."""
    one = previous.block.out if previous.block is not None else None
    two = kept.block.out if kept.block is not None else None
    if one is None or two is None:
        return {}
    x, y = (_centred(t.float(), sampled.valid) for t in (one, two))
    # Tokens are fewer than dimensions: the same quantity from the token-by-token products.
    xx, yy = x @ x.t(), y @ y.t()
    return {"cka": (xx * yy).sum() / (xx.norm() * yy.norm()).clamp_min(1e-12)}


def _centred(states: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    flat, weight = states.flatten(0, 1), valid.flatten()[:, None]
    centre = (flat * weight).sum(dim=0) / weight.sum().clamp_min(1.0)
    return (flat - centre) * weight
