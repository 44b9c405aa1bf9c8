"""Where a tensor's gradient will go: read off autograd's graph, without running it."""

from __future__ import annotations

from typing import NamedTuple

import torch

_SUM = "AddBackward0"


class Path(NamedTuple):
    """``learns``: a gradient is asked for. ``cut``: of a sum, whether a term of it gets none; None
    where it is no sum, or was made without a graph."""

    learns: bool
    cut: bool | None


def path_of(tensor: torch.Tensor) -> Path:
    """The gradient's way from a tensor of the model. Keeps nothing of the graph."""
    node = tensor.grad_fn
    if node is None or node.name() != _SUM:
        return Path(tensor.requires_grad, None)
    return Path(True, any(term is None for term, _ in node.next_functions))
