"""Parameters that the optimizer does not hold, holds twice, or that get no gradient."""

from __future__ import annotations

import torch
from fault_target import Faults, Target
from torch import nn


def left_out(at: Target) -> None:
    parameter = at.layer.contract.weight
    for group in at.optimizer.param_groups:
        group["params"] = [p for p in group["params"] if p is not parameter]


def twice_in_groups(at: Target) -> None:
    group = dict(at.optimizer.param_groups[0], params=[at.layer.contract.weight])
    at.optimizer.param_groups.append(group)


def _still(parameter: nn.Parameter) -> None:
    parameter.register_hook(torch.zeros_like)


def still(at: Target) -> None:
    """Parts of every kind get no gradient any more."""
    layer, parts = at.layer, at.parts
    chosen = [
        layer.expand, layer.norm_attention, layer.norm_ffn, layer.attention_out, parts.head,
        parts.token_embedding, parts.position_embedding, layer.relative_bias,
        at.parts.stacks[-1].norm_final, layer.query, layer.fused,
    ]  # fmt: skip
    for module in chosen:
        if module is not None:
            _still(module.weight)
    for stack in parts.stacks:
        table = stack.layers[0].relative_bias
        if table is not None:
            _still(table.weight)
    if layer.packed is not None:
        _still(layer.packed.in_proj_weight)


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
