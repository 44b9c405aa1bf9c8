"""Masking faults: the attention mask is dropped, inverted, misshapen or leaks the future."""

from __future__ import annotations

import torch

from diagnoser.faults.attention_call import AttentionCall, hide_where_not, rewrite_attention
from diagnoser.faults.fault import DECODERS, Injection, Table

MASKING = Table("masking")


@MASKING.operator("MZM", "mask_application", "replace the attention mask by zeros: nothing masked")
def zero_mask(injection: Injection) -> None:
    """Additive zeros where there was a mask, no causality where there was only the flag."""

    def rewrite(call: AttentionCall) -> torch.Tensor:
        mask = call.additive()
        zeros = None if call.mask is None or mask is None else torch.zeros_like(mask)
        return call.altered(mask=zeros, causal=False).run()

    for block in injection.blocks:
        rewrite_attention(injection.undo, block.attention, rewrite)


@MASKING.operator("MIM", "mask_application", "invert which positions are masked")
def invert_mask(injection: Injection) -> None:
    """What was visible is hidden and the other way round; a row that sees nothing is uniform."""

    def rewrite(call: AttentionCall) -> torch.Tensor:
        visible = call.visible()
        if visible is None:
            shape = (1, 1, call.query.shape[-2], call.key.shape[-2])
            visible = torch.ones(shape, dtype=torch.bool, device=call.query.device)
        mask = hide_where_not(~visible, call.query.dtype)
        return call.altered(mask=mask, causal=False).run()

    for block in injection.blocks:
        rewrite_attention(injection.undo, block.attention, rewrite)


@MASKING.operator(
    "MRM",
    "mask_generation",
    "reshape the mask along the wrong broadcastable axis",
    parameter="axis",
    values=("batch", "head"),
)
def misshape_mask(injection: Injection) -> None:
    """The mask broadcasts, but not along the axis it was made for.

    A padding mask (batch, 1, queries, keys): ``batch`` broadcasts the first row's mask over the
    batch, ``head`` lays the batch axis along the heads. A causal pattern (queries, keys):
    its query axis is laid along the batch or along the heads.
    """
    axis = injection.fault.value

    def rewrite(call: AttentionCall) -> torch.Tensor:
        if call.mask is None and not call.causal:
            return call.run()
        batch, heads = call.query.shape[:2]
        visible = call.visible()
        if visible is None:
            return call.run()
        if call.mask is None:
            count = batch if axis == "batch" else heads
            rows = visible[torch.arange(count, device=visible.device) % visible.shape[0]]
            shape = (count, 1, 1, -1) if axis == "batch" else (1, count, 1, -1)
            wrong = rows.view(shape)
        elif axis == "batch":
            wrong = visible[:1]
        else:
            rows = visible[:, 0]
            wrong = rows[torch.arange(heads, device=rows.device) % rows.shape[0]].unsqueeze(0)
        return call.altered(mask=hide_where_not(wrong, call.query.dtype), causal=False).run()

    for block in injection.blocks:
        rewrite_attention(injection.undo, block.attention, rewrite)


@MASKING.operator(
    "MCB",
    "dynamic_mask",
    "make a fraction of future keys visible",
    scope="decoder",
    parameter="visibility",
    values=(0.1, 0.3, 0.5),
    families=DECODERS,
)
def leak_future(injection: Injection) -> None:
    """The same random future keys become visible in each call of the same shape."""
    share, seed = injection.number, injection.fault.seed

    def rewrite(call: AttentionCall) -> torch.Tensor:
        rows, columns = call.query.shape[-2], call.key.shape[-2]
        visible = call.visible()
        # One query (cached decoding) has no future.
        if visible is None or visible.shape[-2] < 2:
            return call.run()
        generator = torch.Generator().manual_seed(seed)
        drawn = torch.rand(rows, columns, generator=generator) < share
        leak = drawn.to(call.query.device) & ~call.causal_pattern()
        return call.altered(mask=visible | leak, causal=False).run()

    for block in injection.blocks:
        rewrite_attention(injection.undo, block.attention, rewrite)
