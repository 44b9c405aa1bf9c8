"""Further ways of score faults: another scale or axis, softmax twice, rounded scores."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from diagnoser.faults.attention_call import AttentionCall, rewrite_attention
from diagnoser.faults.fault import Clean, Injection, Table, Value

SCORE_WAYS = Table("score", beyond=True)


def _scales(clean: Clean) -> tuple[Value, ...]:
    query = clean.anatomy.blocks[0].query
    width = (query.stop - query.start) // clean.anatomy.blocks[0].heads
    # A lone head is as wide as the model: its scale is right.
    same = width == clean.anatomy.embedding.embedding_dim
    return ("twice",) if same else ("twice", "model_width")


@SCORE_WAYS.operator(
    "SDT",
    "normalization",
    "scale twice, or by the model's width",
    parameter="scale",
    values=("twice", "model_width"),
    choices=_scales,
    happens="q scaled by hand and again inside scaled_dot_product_attention; 1/sqrt(hidden_size) "
    "for 1/sqrt(head_dim)",
)
def scale_too_much(injection: Injection) -> None:
    """Scores are smaller than meant: attention is flat and the gradients of q and k are small."""
    twice = injection.fault.value == "twice"
    width = injection.anatomy.embedding.embedding_dim

    def rewrite(call: AttentionCall) -> torch.Tensor:
        own = call.query.shape[-1] ** -0.5
        return call.altered(scale=call.factor * (own if twice else width**-0.5 / own)).run()

    for block in injection.blocks:
        rewrite_attention(injection.undo, block.attention, rewrite)


def _by_hand(call: AttentionCall, weigh: str) -> torch.Tensor:
    full = call.expanded()
    scores = torch.matmul(full.query, full.key.transpose(-1, -2)) * full.factor
    mask = full.additive()
    hidden = torch.zeros_like(scores)
    if mask is not None:
        hidden = hidden + mask.clamp(min=torch.finfo(scores.dtype).min).to(scores.dtype)
    if weigh == "queries":
        weights = torch.softmax(scores + hidden, dim=-2)
        visible = full.visible()
        if visible is not None:
            # A key that no query sees has a column of equal weights.
            weights = weights * visible.to(weights.dtype)
    else:
        weights = torch.softmax(torch.softmax(scores + hidden, dim=-1) + hidden, dim=-1)
    weights = F.dropout(weights, p=full.dropout, training=full.dropout > 0)
    return torch.matmul(weights, full.value)


@SCORE_WAYS.operator(
    "SAX",
    "normalization",
    "softmax over the queries instead of the keys",
    happens="`softmax(dim=-2)`, or `dim=1` left from code without a head axis",
)
def normalise_wrong_axis(injection: Injection) -> None:
    """Each key's weights sum to 1 over the queries; a query's own need not."""
    for block in injection.blocks:
        rewrite_attention(
            injection.undo, block.attention, lambda call: _by_hand(call, weigh="queries")
        )


@SCORE_WAYS.operator(
    "SDX",
    "implementation",
    "softmax twice",
    happens="weights that are probabilities already go into a function that expects scores",
)
def softmax_twice(injection: Injection) -> None:
    """The weights are softmax of softmax: nearly even among what the mask lets through."""
    for block in injection.blocks:
        rewrite_attention(
            injection.undo, block.attention, lambda call: _by_hand(call, weigh="twice")
        )


def _rounded(scores: torch.Tensor, precision: str) -> torch.Tensor:
    if precision == "bf16":
        rounded = scores.detach().to(torch.bfloat16).to(scores.dtype)
    else:
        step = scores.detach().abs().amax().clamp(min=1e-12) / 127
        rounded = torch.round(scores.detach() / step) * step
    # Straight-through: rounding has no useful derivative.
    return scores + (rounded - scores.detach())


@SCORE_WAYS.operator(
    "SRQ",
    "precision_handling",
    "round the scores before softmax",
    parameter="precision",
    values=("bf16", "int8"),
    happens="a cast of the scores to save memory, or post-training quantisation that covers the "
    "score product: no overflow, but close scores tie",
)
def round_scores(injection: Injection) -> None:
    """A float32 product, then 8 significant bits (bf16) or 255 levels a call (int8)."""
    precision = str(injection.fault.value)

    def rewrite(call: AttentionCall) -> torch.Tensor:
        return call.by_hand(lambda scores: _rounded(scores, precision))

    for block in injection.blocks:
        rewrite_attention(injection.undo, block.attention, rewrite)
