"""Where a fault goes: a model with its parts known, and the ways to change what they do.

A fault is a function that changes a freshly made model (or its optimizer) for good, at layer 1 of
its last stack. It raises :class:`Inapplicable` where the model has no such part.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode

from probe.anatomy import LayerParts, ModelParts, find, weight_of
from probe.capture import Capturing, batch_of
from probe.stopwatch import Stopwatch

KERNEL = F.scaled_dot_product_attention
PACKED = F.multi_head_attention_forward
SOFTMAX = (torch.softmax, torch.Tensor.softmax, F.softmax)


class Inapplicable(Exception):
    """The model has nothing that this fault could change."""


@dataclass
class Target:
    """A model with its parts' roles known, and its training's optimizer."""

    model: nn.Module
    parts: ModelParts
    optimizer: torch.optim.Optimizer

    first_stack: bool = False

    @property
    def layer(self) -> LayerParts:
        return self.parts.stacks[0 if self.first_stack else -1].layers[1]


def target(model: nn.Module, given: dict[str, Any], optimizer: torch.optim.Optimizer) -> Target:
    """Settle the roles by one forward with ``given``; its random numbers do not count."""
    parts = find(model)
    with torch.random.fork_rng(), torch.no_grad():
        capturing = Capturing(parts, batch_of(parts, (), given), lambda error: None, Stopwatch())
        model(**given)
        capturing.close()
    return Target(model, parts, optimizer)


class _Calls(TorchFunctionMode):
    def __init__(self, change: Callable[[Any, dict[str, Any]], Any]) -> None:
        super().__init__()
        self._change = change

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func is KERNEL:
            names = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")
        elif func is PACKED:
            names = (
                "query", "key", "value", "embed_dim_to_check", "num_heads", "in_proj_weight",
                "in_proj_bias", "bias_k", "bias_v", "add_zero_attn", "dropout_p",
                "out_proj_weight", "out_proj_bias",
            )  # fmt: skip
        elif func in SOFTMAX:
            names = ("input",)
        else:
            return func(*args, **kwargs)
        named = dict(zip(names, args, strict=False)) | kwargs
        rest = args[len(names) :]
        kind = "softmax" if func in SOFTMAX else "kernel" if func is KERNEL else "packed"
        changed = self._change(kind, named)
        if isinstance(changed, Replaced):
            return changed.result(func)
        if kind == "softmax":
            return func(changed.pop("input"), *rest, **changed)
        return func(*rest, **changed)


@dataclass
class Replaced:
    """Instead of a call with other arguments: what ``result`` makes of the function."""

    result: Callable[[Any], Any]


def rewrite(at: Target, change: Callable[[str, dict[str, Any]], Any]) -> None:
    """Pass the attention calls of the layer through ``change(kind, named arguments)``."""
    module = at.layer.attention
    original = module.forward

    def forward(*args, **kwargs):
        with _Calls(change):
            return original(*args, **kwargs)

    module.forward = forward


def in_kernel(at: Target, change: Callable[[dict[str, Any]], Any]) -> None:
    """Only for SDPA that the module calls itself."""
    if at.layer.packed is not None or getattr(at.layer.attention, "by_hand", False):
        raise Inapplicable
    rewrite(at, lambda kind, named: change(named) if kind == "kernel" else named)


def into(module: nn.Module | None, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Change the first argument of a module."""
    if module is None:
        raise Inapplicable
    module.register_forward_pre_hook(lambda m, args: (change(args[0]), *args[1:]))


def out_of(module: nn.Module | None, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Change the result of a module, the first where there are several."""
    if module is None:
        raise Inapplicable
    original = module.forward

    def forward(*args, **kwargs):
        result = original(*args, **kwargs)
        if isinstance(result, tuple):
            return (change(result[0]), *result[1:])
        return change(result)

    module.forward = forward


def rows_of(at: Target, part: str) -> list[torch.Tensor]:
    """Weight and bias rows of q, k or v; views that can be written to."""
    layer = at.layer
    place = ("query", "key", "value").index(part)
    single = getattr(layer, part)
    if single is not None:
        pair = [weight_of(single).data, getattr(single, "bias", None)]
        return [t.data for t in pair if t is not None]
    holder = layer.fused or layer.packed
    if holder is None:
        raise Inapplicable
    weight = holder.in_proj_weight if layer.packed is not None else weight_of(holder)
    bias = getattr(holder, "in_proj_bias" if layer.packed is not None else "bias", None)
    return [t.data.chunk(3)[place] for t in (weight, bias) if t is not None]


def own_group(at: Target, parameter: nn.Parameter, **options: float) -> None:
    """Give a parameter a group of its own in the optimizer."""
    for group in at.optimizer.param_groups:
        group["params"] = [p for p in group["params"] if p is not parameter]
    at.optimizer.add_param_group({"params": [parameter], **options})


Faults = dict[str, tuple[Callable[[Target], None], ...]]
"""By contract, the faults made for it."""
