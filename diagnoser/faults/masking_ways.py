"""Further ways of masking faults: applied too late, raw, misplaced, off by a diagonal, stale."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from diagnoser.faults.attention_call import AttentionCall, hide_where_not, rewrite_attention
from diagnoser.faults.fault import DECODERS, Clean, Injection, Table, Value

MASKING_WAYS = Table("masking", beyond=True)


@MASKING_WAYS.operator(
    "MPS",
    "mask_application",
    "multiply the weights by the mask after softmax",
    happens="`weights * mask` behind softmax instead of `masked_fill` before it "
    "(pytorch-image-models#2236); rows no longer sum to 1 and hidden keys still share the softmax",
)
def mask_after_softmax(injection: Injection) -> None:
    """Softmax runs over all keys; what the mask hides is zeroed afterwards, without a new sum."""

    def rewrite(call: AttentionCall) -> torch.Tensor:
        visible = call.visible()
        if visible is None:
            return call.run()
        full = call.expanded()
        scores = torch.matmul(full.query, full.key.transpose(-1, -2)) * full.factor
        weights = torch.softmax(scores, dim=-1) * visible.to(scores.dtype)
        weights = F.dropout(weights, p=full.dropout, training=full.dropout > 0)
        return torch.matmul(weights, full.value)

    for block in injection.blocks:
        rewrite_attention(injection.undo, block.attention, rewrite)


@MASKING_WAYS.operator(
    "MRA",
    "mask_application",
    "add the raw 0/1 mask to the scores",
    happens="the tokenizer's attention_mask handed on as a float, where the attention expects "
    "0 and the dtype's minimum: 1 is added to visible scores and nothing is hidden",
)
def add_raw_mask(injection: Injection) -> None:
    """Visible keys get 1 more than hidden ones; the hidden ones stay visible."""

    def rewrite(call: AttentionCall) -> torch.Tensor:
        visible = call.visible()
        if visible is None:
            return call.run()
        return call.altered(mask=visible.to(call.query.dtype), causal=False).run()

    for block in injection.blocks:
        rewrite_attention(injection.undo, block.attention, rewrite)


def _errors(clean: Clean) -> tuple[Value, ...]:
    # Bidirectional attention has no diagonal to be wrong about.
    return ("other_side", "strict_diagonal") if clean.anatomy.decoder else ("other_side",)


@MASKING_WAYS.operator(
    "MSD",
    "mask_generation",
    "build the mask for the other padding side, or without the diagonal",
    parameter="error",
    values=("other_side", "strict_diagonal"),
    choices=_errors,
    happens="`arange(n) < length` with a tokenizer that pads left (or the reverse), and "
    "`tril(diagonal=-1)`: no token sees itself",
)
def build_wrong_mask(injection: Injection) -> None:
    """Right shape, wrong places.

    ``other_side`` mirrors which keys are padding; batches without padding are not touched.
    ``strict_diagonal`` hides each token from itself; the first then sees all keys evenly.
    """
    error = str(injection.fault.value)

    def rewrite(call: AttentionCall) -> torch.Tensor:
        visible = call.visible()
        rows, columns = call.query.shape[-2], call.key.shape[-2]
        # Cached decoding: a mask of one row has neither side nor diagonal of its own.
        if visible is None or rows != columns:
            return call.run()
        pattern = torch.ones(rows, columns, dtype=torch.bool, device=visible.device)
        if error == "strict_diagonal":
            wrong = visible & pattern.tril(-1)
        elif call.mask is None:
            return call.run()
        else:
            # Key j is no padding if any query sees it.
            real = visible.any(dim=-2, keepdim=True).flip(-1)
            wrong = real & (pattern.tril() if injection.anatomy.decoder else pattern)
        return call.altered(mask=hide_where_not(wrong, call.query.dtype), causal=False).run()

    for block in injection.blocks:
        rewrite_attention(injection.undo, block.attention, rewrite)


@MASKING_WAYS.operator(
    "MDO",
    "dynamic_mask",
    "causal mask off by some diagonals",
    scope="decoder",
    parameter="ahead",
    values=(1, 2, 4),
    families=DECODERS,
    happens="`triu(diagonal=2)` for `triu(diagonal=1)`, or a mask offset by a past length that "
    "already counts the new token",
)
def shift_diagonal(injection: Injection) -> None:
    """Each token sees the next ``ahead`` real ones as well."""
    ahead = int(injection.number)

    def rewrite(call: AttentionCall) -> torch.Tensor:
        visible = call.visible()
        rows, columns = call.query.shape[-2], call.key.shape[-2]
        if visible is None or rows < 2 or rows != columns:
            return call.run()
        pattern = call.causal_pattern()
        leak = torch.ones_like(pattern).tril(ahead) & ~pattern
        # Padding stays hidden: a real token sees itself.
        real = visible.diagonal(dim1=-2, dim2=-1).unsqueeze(-2)
        return call.altered(mask=visible | (leak & real), causal=False).run()

    for block in injection.blocks:
        rewrite_attention(injection.undo, block.attention, rewrite)


@MASKING_WAYS.operator(
    "MST",
    "dynamic_mask",
    "reuse the mask of an earlier batch",
    scope="decoder",
    families=DECODERS,
    happens="a mask kept in a buffer and rebuilt only when the shape changes, so that every "
    "batch of that shape gets the first one's padding",
)
def keep_stale_mask(injection: Injection) -> None:
    """Batches of a shape seen before get the mask made for the batch seen then."""
    kept: dict[int, torch.Tensor] = {}

    def rewrite_for(index: int) -> None:
        def rewrite(call: AttentionCall) -> torch.Tensor:
            if call.mask is None or call.query.shape[-2] < 2:
                return call.run()
            stale = kept.get(index)
            if stale is None or stale.shape != call.mask.shape or stale.dtype != call.mask.dtype:
                stale = kept[index] = call.mask.detach()
            return call.altered(mask=stale).run()

        rewrite_attention(injection.undo, injection.anatomy.blocks[index].attention, rewrite)

    for index in injection.fault.layers:
        rewrite_for(index)
