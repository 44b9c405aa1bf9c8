"""Score faults: scaling, dropout before softmax, half-precision scores."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from diagnoser.faults.attention_call import AttentionCall, hide_where_not, rewrite_attention
from diagnoser.faults.fault import Injection, Table

SCORE = Table("score")


@SCORE.operator("SDS", "normalization", "leave out the 1/sqrt(d_k) scaling")
def skip_scaling(injection: Injection) -> None:
    """The kernel runs with scale 1."""

    def rewrite(call: AttentionCall) -> torch.Tensor:
        return call.altered(scale=1.0).run()

    for block in injection.blocks:
        rewrite_attention(injection.undo, block.attention, rewrite)


@SCORE.operator(
    "SPD",
    "implementation",
    "dropout on the scores before softmax",
    parameter="p",
    values=(0.1, 0.3, 0.5),
)
def drop_scores(injection: Injection) -> None:
    """In training mode, scores are dropped (set to 0, the rest scaled up) before the mask."""
    p = injection.number

    def rewrite(call: AttentionCall) -> torch.Tensor:
        return call.by_hand(lambda scores: F.dropout(scores, p=p, training=call.training))

    for block in injection.blocks:
        rewrite_attention(injection.undo, block.attention, rewrite)


@SCORE.operator("SUC", "precision_handling", "compute scores in float16 unsafely")
def half_scores(injection: Injection) -> None:
    """Products, scaling, mask and softmax in float16: overflow above 65504, 11 significant bits."""

    def rewrite(call: AttentionCall) -> torch.Tensor:
        full = call.expanded()
        half = torch.float16
        # Unscaled product first: the unsafe order, in which large q·k overflow.
        scores = torch.matmul(full.query.to(half), full.key.to(half).transpose(-1, -2))
        scores = scores * full.factor
        visible = full.visible()
        if visible is not None:
            scores = scores + hide_where_not(visible, half)
        weights = torch.softmax(scores, dim=-1).to(full.value.dtype)
        weights = F.dropout(weights, p=full.dropout, training=full.dropout > 0)
        return torch.matmul(weights, full.value)

    for block in injection.blocks:
        rewrite_attention(injection.undo, block.attention, rewrite)
