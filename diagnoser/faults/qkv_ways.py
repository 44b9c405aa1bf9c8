"""Further ways of QKV faults: wild initial scale, heads merged wrongly, untrained, cut short."""

from __future__ import annotations

import torch

from diagnoser.faults.attention_call import AttentionCall, rewrite_attention
from diagnoser.faults.fault import Injection, Table
from diagnoser.faults.override import edit_parameter
from diagnoser.faults.parameter_groups import leave_out
from diagnoser.faults.parts import Anatomy

QKV_WAYS = Table("qkv", beyond=True)


@QKV_WAYS.operator(
    "QNI",
    "parameter_initialization",
    "draw projections with torch's default normal_()",
    parameter="projections",
    values=("query", "key", "value", "all"),
    moment="start",
    happens="`nn.init.normal_(p)` without `std`, which is 1, in custom init code or after a load "
    "that skipped the model's own initialiser",
)
def initialise_wildly(injection: Injection) -> None:
    """Weights start from N(0, 1) instead of the model's small spread; biases stay."""
    which = str(injection.fault.value)
    generator = torch.Generator().manual_seed(injection.fault.seed)
    for block in injection.blocks:
        named = {"query": block.query, "key": block.key, "value": block.value}
        for name, projection in named.items():
            if which not in (name, "all"):
                continue
            weight, part = projection.parameters()[0]

            def change(data: torch.Tensor, part: tuple[slice, ...] = part) -> None:
                data[part] = torch.randn(data[part].shape, generator=generator).to(data)

            edit_parameter(injection.undo, weight, change)


def _several_heads(anatomy: Anatomy) -> bool:
    return anatomy.blocks[0].heads > 1


@QKV_WAYS.operator(
    "QMH",
    "head_interaction",
    "merge the heads without transposing them back",
    requires=_several_heads,
    happens="`out.reshape(batch, n, -1)` on (batch, heads, n, width): the call works, heads and "
    "positions are mixed",
)
def merge_untransposed(injection: Injection) -> None:
    """The kernel's result (batch, heads, n, width) is read as (batch, n, heads, width)."""

    def rewrite(call: AttentionCall) -> torch.Tensor:
        result = call.run()
        batch, heads, length, width = result.shape
        return result.reshape(batch, length, heads, width).transpose(1, 2)

    for block in injection.blocks:
        rewrite_attention(injection.undo, block.attention, rewrite)


@QKV_WAYS.operator(
    "QLO",
    "dynamic_parameter_registration",
    "leave the QKV parameters out of the optimizer",
    happens="a module replaced (adapter, pruning, surgery) after the optimizer was made, which "
    "goes on holding the old parameters (microsoft/nni#4521)",
)
def forget_projections(injection: Injection) -> None:
    """The projections get gradients as ever, but no optimizer group holds them."""
    parameters = [
        parameter
        for block in injection.blocks
        for module in {block.query.module, block.key.module, block.value.module}
        for parameter in module.parameters()
    ]
    leave_out(injection.undo, injection.training_optimizer, parameters)


@QKV_WAYS.operator(
    "QHW",
    "dimension",
    "cut q and k to a smaller head width than the config's",
    parameter="kept",
    values=(0.25, 0.5, 0.75),
    happens="head width taken as hidden_size / heads where the config names its own head_dim, "
    "and the surplus of each head sliced off",
)
def cut_head_width(injection: Injection) -> None:
    """The scores use the first share of each head's q and k, scaled for that width."""
    kept = injection.number

    def rewrite(call: AttentionCall) -> torch.Tensor:
        width = call.query.shape[-1]
        cut = min(width - 1, max(1, round(kept * width)))
        # Same ratio to 1/√(head width) as before.
        scale = call.factor * (width / cut) ** 0.5
        query, key = call.query[..., :cut], call.key[..., :cut]
        return call.altered(query=query, key=key, scale=scale).run()

    for block in injection.blocks:
        rewrite_attention(injection.undo, block.attention, rewrite)
