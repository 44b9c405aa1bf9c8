"""QKV faults: projections zeroed, swapped, tied, frozen or split into wrong heads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers.pytorch_utils import Conv1D

from diagnoser.faults.attention_call import AttentionCall, rewrite_attention
from diagnoser.faults.fault import Clean, Injection, Table, Value
from diagnoser.faults.override import edit_parameter, override_forward, shadow_submodule
from diagnoser.faults.parts import Anatomy, Block, Projection

QKV = Table("qkv")


def _zero(injection: Injection, projection: Projection) -> None:
    for parameter, part in projection.parameters():

        def change(data: torch.Tensor, part: tuple[slice, ...] = part) -> None:
            data[part] = 0.0

        edit_parameter(injection.undo, parameter, change)


@QKV.operator("QZQ", "parameter_initialization", "zero the query projection", moment="start")
def zero_query(injection: Injection) -> None:
    """Weight and bias of the query projection start at zero."""
    for block in injection.blocks:
        _zero(injection, block.query)


@QKV.operator("QZK", "parameter_initialization", "zero the key projection", moment="start")
def zero_key(injection: Injection) -> None:
    """Weight and bias of the key projection start at zero."""
    for block in injection.blocks:
        _zero(injection, block.key)


@QKV.operator("QZV", "parameter_initialization", "zero the value projection", moment="start")
def zero_value(injection: Injection) -> None:
    """Weight and bias of the value projection start at zero."""
    for block in injection.blocks:
        _zero(injection, block.value)


def _swapped_call(call: AttentionCall) -> torch.Tensor:
    """Swap query and key at the kernel, where grouped heads have been expanded to one shape."""
    full = call.expanded()
    if full.query.shape != full.key.shape:
        # Cached decoding: the queries are fewer than the keys and cannot stand in for them.
        return call.run()
    return full.altered(query=full.key, key=full.query).run()


def _calling(other: nn.Module) -> Callable[[nn.Module], Callable[..., Any]]:
    return lambda _: other


def _swapped_chunks(fused: nn.Module) -> Callable[..., Any]:
    def call(hidden: torch.Tensor) -> torch.Tensor:
        query, key, value = fused(hidden).chunk(3, dim=-1)
        return torch.cat((key, query, value), dim=-1)

    return call


@QKV.operator("QSW", "head_interaction", "swap query and key projections")
def swap_query_key(injection: Injection) -> None:
    """The attention calls the key projection for the query and the other way round."""
    for block in injection.blocks:
        query, key = block.query, block.key
        if query.name == key.name:
            shadow_submodule(injection.undo, query.holder, query.name, _swapped_chunks)
        elif query.stop == key.stop:
            for called, used in ((query, key), (key, query)):
                shadow_submodule(injection.undo, called.holder, called.name, _calling(used.module))
        else:
            rewrite_attention(injection.undo, block.attention, _swapped_call)


def _tied_to_first(heads: int, which: str) -> list[int]:
    if which == "all":
        return [0] * heads
    if which == "first_half":
        half = max(2, heads // 2)
        return [0 if head < half else head for head in range(heads)]
    return [0 if head % 2 == 0 else head for head in range(heads)]


def _several_heads(anatomy: Anatomy) -> bool:
    return anatomy.blocks[0].heads > 1


def _head_ties(clean: Clean) -> tuple[Value, ...]:
    # With two heads, every second head is the first alone: nothing would be tied.
    few = clean.anatomy.blocks[0].heads < 3
    return ("first_half", "all") if few else ("first_half", "alternating", "all")


@QKV.operator(
    "QTH",
    "head_interaction",
    "tie several heads to one",
    parameter="heads",
    values=("first_half", "alternating", "all"),
    choices=_head_ties,
    requires=_several_heads,
)
def tie_heads(injection: Injection) -> None:
    """Tied heads use the first head's query, key and value."""
    which = str(injection.fault.value)

    def rewrite(call: AttentionCall) -> torch.Tensor:
        full = call.expanded()
        index = torch.tensor(_tied_to_first(full.query.shape[1], which), device=full.query.device)
        return full.altered(
            query=full.query.index_select(1, index),
            key=full.key.index_select(1, index),
            value=full.value.index_select(1, index),
        ).run()

    for block in injection.blocks:
        rewrite_attention(injection.undo, block.attention, rewrite)


def _detached(original: Callable[..., Any]) -> Callable[..., Any]:
    module: Any = original.__self__  # type: ignore[attr-defined]

    def forward(hidden: torch.Tensor) -> torch.Tensor:
        weight = module.weight.detach()
        bias = None if module.bias is None else module.bias.detach()
        # GPT-2's Conv1D keeps its weight as (in, out).
        return F.linear(hidden, weight.T if isinstance(module, Conv1D) else weight, bias)

    return forward


def _projections(block: Block) -> dict[int, nn.Module]:
    found = (block.query.module, block.key.module, block.value.module)
    return {id(module): module for module in found}


@QKV.operator(
    "QFG",
    "dynamic_parameter_registration",
    "freeze the QKV gradients while the forward path still uses them",
)
def freeze_projections(injection: Injection) -> None:
    """The projections stay registered and require gradients, but none reaches them."""
    for block in injection.blocks:
        for module in _projections(block).values():
            override_forward(injection.undo, module, _detached)


def _new_heads(heads: int, width: int, split: str) -> int:
    """Number of heads after a wrong split; raises ValueError where the widths do not divide."""
    count = {"half_heads": heads // 2, "double_heads": heads * 2, "single_head": 1}[split]
    if count < 1 or (heads * width) % count:
        raise ValueError(f"{heads} heads of width {width} cannot be split as {split}.")
    return count


def _splits(clean: Clean) -> tuple[Value, ...]:
    block = clean.anatomy.blocks[0]
    width = block.query.stop - block.query.start
    width = width // block.heads
    possible: list[Value] = []
    if block.heads % 2 == 0 and block.heads > 2:
        possible.append("half_heads")
    if width % 2 == 0:
        possible.append("double_heads")
    if block.heads > 1:
        possible.append("single_head")
    return tuple(possible)


def _split_anew(tensor: torch.Tensor, heads: int) -> torch.Tensor:
    batch, _, length, _ = tensor.shape
    return tensor.transpose(1, 2).reshape(batch, length, heads, -1).transpose(1, 2)


@QKV.operator(
    "QHD",
    "dimension",
    "split d_model into a different heads x d_head",
    parameter="split",
    values=("half_heads", "double_heads", "single_head"),
    choices=_splits,
)
def resplit_heads(injection: Injection) -> None:
    """The kernel sees other heads than the config says, scaled for their own width."""
    split = str(injection.fault.value)

    def rewrite(call: AttentionCall) -> torch.Tensor:
        full = call.expanded()
        heads, width = full.query.shape[1], full.query.shape[-1]
        count = _new_heads(heads, width, split)
        mask = full.mask
        if mask is not None and mask.dim() == 4:
            mask = mask[:, :1]
        result = full.altered(
            query=_split_anew(full.query, count),
            key=_split_anew(full.key, count),
            value=_split_anew(full.value, count),
            mask=mask,
            # Same ratio to 1/√(head width) as before.
            scale=full.factor * (count / heads) ** 0.5,
        ).run()
        return _split_anew(result, heads)

    for block in injection.blocks:
        rewrite_attention(injection.undo, block.attention, rewrite)
