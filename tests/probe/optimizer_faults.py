"""Parameters that the optimizer does not hold, holds twice, or that get no gradient."""

from __future__ import annotations

import torch
from fault_target import Faults, Inapplicable, Target
from torch import nn

from probe.adapters import own_parameters


def _trained(module: nn.Module) -> list[nn.Parameter]:
    """The matrices of a module that train: its own, or its adapters'."""
    trained = [p for _, p in own_parameters(module) if p.requires_grad and p.dim() > 1]
    if not trained:
        raise Inapplicable
    return trained


def left_out(at: Target) -> None:
    parameter = _trained(at.layer.contract)[-1]
    for group in at.optimizer.param_groups:
        group["params"] = [p for p in group["params"] if p is not parameter]


def twice_in_groups(at: Target) -> None:
    group = dict(at.optimizer.param_groups[0], params=[_trained(at.layer.contract)[-1]])
    at.optimizer.param_groups.append(group)


def still(at: Target) -> None:
    """Parts of every kind get no gradient any more."""
    layer, parts = at.layer, at.parts
    chosen = [
        layer.expand, layer.norm_attention, layer.norm_ffn, layer.attention_out, parts.head,
        parts.token_embedding, parts.position_embedding, layer.relative_bias,
        at.parts.stacks[-1].norm_final, layer.query, layer.fused, layer.packed,
        *(stack.layers[0].relative_bias for stack in parts.stacks),
    ]  # fmt: skip
    for module in chosen:
        for name, parameter in own_parameters(module) if module is not None else ():
            if name.endswith("weight") and parameter.requires_grad:
                parameter.register_hook(torch.zeros_like)


MADE_FOR: Faults = {
    "embedding/unmoved": (still,),
    "positional/unmoved": (still,),
    "qkv/unmoved": (still,),
    "attention/unmoved": (still,),
    "norm_attention/unmoved": (still,),
    "norm_ffn/unmoved": (still,),
    "norm_final/unmoved": (still,),
    "ffn/unmoved": (still,),
    "output/unmoved": (still,),
    "training/uncovered": (left_out,),
    "training/duplicated": (twice_in_groups,),
}
