"""Further ways of FFN faults: merged adapter, pruning kept on, activation missing, L2, copies."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from diagnoser.faults.fault import Injection, Table
from diagnoser.faults.gradient_changes import penalise
from diagnoser.faults.override import edit_parameter, override_forward, wrap_step
from diagnoser.faults.parts import Linear

FFN_WAYS = Table("ffn", beyond=True)

RANK = 4


@FFN_WAYS.operator(
    "FLM",
    "weight_scaling",
    "merge a low-rank update of the wrong strength",
    parameter="strength",
    values=(0.5, 2.0, 5.0),
    happens="an adapter merged with alpha where alpha / rank was meant, or merged twice",
)
def merge_low_rank(injection: Injection) -> None:
    """A random matrix of rank 4 is added once, ``strength`` times as long as the weight."""
    strength = injection.number
    generator = torch.Generator().manual_seed(injection.fault.seed)

    def change(data: torch.Tensor) -> None:
        rows, columns = data.shape
        left = torch.randn(rows, RANK, generator=generator)
        update = (left @ torch.randn(RANK, columns, generator=generator)).to(data)
        data.add_(update * (strength * data.norm() / update.norm()))

    for block in injection.blocks:
        for linear in (*block.ffn_in, block.ffn_out):
            edit_parameter(injection.undo, linear.weight, change)


def _neuron_axis(linear: Linear, *, outgoing: bool) -> int:
    """The weight's axis the neurons lie on; GPT-2's Conv1D is (in, out), a linear (out, in)."""
    return int(outgoing) ^ int(isinstance(linear.module, Conv1D))


def _fill_zero(data: torch.Tensor, axis: int, rows: torch.Tensor) -> None:
    data.index_fill_(axis, rows, 0.0)


@FFN_WAYS.operator(
    "FPR",
    "neuron_dropout",
    "keep the weakest neurons' outgoing weights at zero",
    parameter="percentage",
    values=(0.1, 0.3, 0.5),
    happens="structured magnitude pruning whose mask is applied again after every step and was "
    "meant for another model or an earlier phase",
)
def keep_pruned(injection: Injection) -> None:
    """Neurons with the smallest outgoing weights fire as ever, but nothing reads them."""
    share = injection.number
    pruned: list[tuple[torch.Tensor, Callable[[torch.Tensor], Any]]] = []
    for block in injection.blocks:
        weight, axis = block.ffn_out.weight, _neuron_axis(block.ffn_out, outgoing=True)
        strength = weight.norm(dim=1 - axis)
        rows = strength.argsort()[: max(1, round(share * len(strength)))]
        zero = functools.partial(_fill_zero, axis=axis, rows=rows)
        pruned.append((weight.data, zero))
        edit_parameter(injection.undo, weight, zero)
    if injection.optimizer is None:
        return

    def build(step: Callable[..., Any]) -> Callable[..., Any]:
        def pruning_step(*args: Any, **kwargs: Any) -> Any:
            result = step(*args, **kwargs)
            for weight, zero in pruned:
                zero(weight)
            return result

        return pruning_step

    wrap_step(injection.undo, injection.training_optimizer, build)


@FFN_WAYS.operator(
    "FAM",
    "activation_function",
    "activation left out, or applied twice",
    parameter="times",
    values=("none", "twice"),
    happens="nn.Identity kept from an ablation, an unknown name that falls back to linear; an "
    "activation inside the module and again around it",
)
def miscount_activation(injection: Injection) -> None:
    """The config's own function runs not at all or on its own result."""
    twice = injection.fault.value == "twice"

    def build(original: Callable[..., Any]) -> Callable[..., Any]:
        return (lambda hidden: original(original(hidden))) if twice else (lambda hidden: hidden)

    for block in injection.blocks:
        override_forward(injection.undo, block.activation, build)


@FFN_WAYS.operator(
    "FLP",
    "regularization",
    "L2 penalty on the FFN's gradients",
    parameter="coefficient",
    values=(0.01, 0.1),
    happens="a hand-written penalty over `named_parameters()` whose name filter matches the FFN "
    "only, beside the optimizer's own decay",
)
def penalise_ffn(injection: Injection) -> None:
    """The FFN is pulled to zero through the gradient; the optimizer's groups are in order."""
    parameters = [p for block in injection.blocks for p in block.ffn_parameters]
    penalise(injection.undo, injection.training_optimizer, parameters, injection.number)


def _copy(data: torch.Tensor, axis: int, which: str) -> None:
    count = data.shape[axis]
    copies = torch.arange(0 if which == "all" else count - count // 2, count, device=data.device)
    source = torch.zeros_like(copies) if which == "all" else copies - copies[0]
    data.index_copy_(axis, copies, data.index_select(axis, source))


@FFN_WAYS.operator(
    "FCP",
    "weight_initialization",
    "start neurons as copies of each other",
    parameter="copies",
    values=("half", "all"),
    moment="start",
    happens="a narrower FFN widened by copying without noise, or one row broadcast into the whole "
    "matrix: copies get equal gradients and stay alike",
)
def copy_neurons(injection: Injection) -> None:
    """``all``: every neuron starts as the first; ``half``: the second half as the first half."""
    which = str(injection.fault.value)
    for block in injection.blocks:
        linears = [(linear, False) for linear in block.ffn_in] + [(block.ffn_out, True)]
        for linear, outgoing in linears:
            axis = _neuron_axis(linear, outgoing=outgoing)
            change = functools.partial(_copy, axis=axis, which=which)
            edit_parameter(injection.undo, linear.weight, change)
            bias: nn.Parameter | None = getattr(linear.module, "bias", None)
            if bias is not None and not outgoing:
                change = functools.partial(_copy, axis=0, which=which)
                edit_parameter(injection.undo, bias, change)
