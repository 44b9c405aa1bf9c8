"""Tensors of which each rank holds a part (``DTensor``): which are such, and this rank's part."""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import nn


def is_flattened(root: nn.Module) -> bool:
    """Whether torch's first FSDP keeps the weights: as parts of one flat parameter, which other
    names are views of for the time of a forward only."""
    return any(type(m).__name__ == "FullyShardedDataParallel" for m in root.modules())


def is_sharded(tensor: Any) -> bool:
    """Whether this is a rank's part of a larger tensor."""
    kinds = sys.modules.get("torch.distributed.tensor")
    return kinds is not None and isinstance(tensor, kinds.DTensor)


def local(tensor: torch.Tensor) -> torch.Tensor:
    """This rank's part, without any exchange; a whole tensor as it is. Call under no_grad."""
    return tensor.to_local() if is_sharded(tensor) else tensor  # type: ignore[attr-defined]


def has_shards(root: nn.Module) -> bool:
    """Whether any parameter of the model is a shard now."""
    if "torch.distributed.tensor" not in sys.modules:
        return False
    return any(is_sharded(parameter) for parameter in root.parameters())
