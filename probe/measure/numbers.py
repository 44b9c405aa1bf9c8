"""Small reductions that stay on the device and never wait for it. All return 0-d float32 tensors."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch.linalg import vector_norm

TINY = 1e-12


def relative(a: torch.Tensor, b: torch.Tensor, weight: torch.Tensor | None = None) -> torch.Tensor:
    """‖a - b‖ over the larger of ‖a‖ and ‖b‖; 0 where both are zero. ``weight`` broadcasts."""
    a, b = a.float(), b.float()
    if weight is not None:
        a, b = a * weight, b * weight
    largest = torch.maximum(vector_norm(a), vector_norm(b))
    return vector_norm(a - b) / largest.clamp_min(TINY)


def mean(values: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Mean of ``values`` weighted by ``weight`` of the same shape; NaN where all weights are 0."""
    return (values.float() * weight).sum() / weight.sum()


def by_head(values: torch.Tensor, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Weighted mean of ``values`` (r, h, p) over everything, 0-d, and of each head, (h,).

    ``weight`` broadcasts. NaN where all weights are 0.
    """
    weight = weight.expand(values.shape)
    sums, counts = (values.float() * weight).sum(dim=(0, 2)), weight.sum(dim=(0, 2))
    return sums.sum() / counts.sum(), sums / counts


def log2_ratio(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """log2(a / b) of two positive numbers; NaN where either is zero."""
    good = (a > TINY) & (b > TINY)
    return torch.log2(torch.where(good, a / b.clamp_min(TINY), torch.nan))


def strided(tensor: torch.Tensor, count: int) -> torch.Tensor:
    """About ``count`` elements of a tensor, evenly spaced; a view where the layout allows it."""
    tensor = tensor.detach()
    flat = tensor.view(-1) if tensor.is_contiguous() else tensor.t().reshape(-1)
    # An odd stride does not keep hitting the same columns of a matrix.
    stride = max(1, flat.numel() // count) | 1
    return flat[::stride]


def rms(tensor: torch.Tensor, count: int = 4096) -> torch.Tensor:
    """Root mean square of about ``count`` strided elements."""
    return strided(tensor, count).float().square().mean().sqrt()


def spread(values: torch.Tensor, dim: int) -> torch.Tensor:
    """Standard deviation along one dimension; ``Tensor.std`` takes six times as long on a CPU."""
    off = values - values.mean(dim=dim, keepdim=True)
    return (off.square().sum(dim=dim) / (values.shape[dim] - 1)).sqrt()


def moments(values: torch.Tensor, weight: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Weighted mean, standard deviation, skewness and excess kurtosis of ``values`` (r, h, p, n),
    and of each head its standard deviation, (h,).

    ``weight`` (r, h or 1, p, n): 0 or 1.
    """
    every = (0, 2, 3)
    counts = weight.sum(dim=every).expand(values.shape[1])
    total = counts.sum().clamp_min(1.0)
    centre = (values * weight).sum() / total
    off = (values - centre) * weight
    squares = off * off
    of_heads = squares.sum(dim=every)
    deviation = (of_heads.sum() / total).sqrt()
    std = deviation.clamp_min(TINY)
    skew = (squares * off).sum() / total / std**3
    kurtosis = squares.square().sum() / total / std**4 - 3.0
    own = (of_heads / counts - (off.sum(dim=every) / counts) ** 2).clamp_min(0.0).sqrt()
    return centre, deviation, skew, kurtosis, own


@lru_cache(maxsize=16)
def significand_bits(dtype: torch.dtype) -> int:
    """Bits of significand: 24 for float32, 11 for float16, 8 for bfloat16."""
    return round(-math.log2(torch.finfo(dtype).eps)) + 1
