"""Further ways of residual faults: wrong skip, scaled skip, rounded or cut stream, other drops."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from diagnoser.faults.fault import Injection, Table
from diagnoser.faults.gradient_changes import before_step
from diagnoser.faults.parts import Block
from diagnoser.faults.residual_path import combine_residuals

RESIDUAL_WAYS = Table("residual", beyond=True)


def _reuse_first_skip(injection: Injection, block: Block) -> None:
    entered: torch.Tensor | None = None

    def after_attention(residual: torch.Tensor, branch: torch.Tensor) -> torch.Tensor:
        nonlocal entered
        entered = residual
        return residual + branch

    def after_ffn(residual: torch.Tensor, branch: torch.Tensor) -> torch.Tensor:
        nonlocal entered
        skip, entered = entered, None
        return branch + (residual if skip is None else skip)

    combine_residuals(injection.undo, block, after_attention, after_ffn)


@RESIDUAL_WAYS.operator(
    "RWS",
    "skip_connection",
    "the second skip carries the block's input",
    happens="the line `residual = hidden_states` missing between attention and FFN: what "
    "attention added to the stream is cut off again",
)
def reuse_first_skip(injection: Injection) -> None:
    """After the FFN the stream from before the attention is added, not the one after it."""
    for block in injection.blocks:
        _reuse_first_skip(injection, block)


@RESIDUAL_WAYS.operator(
    "RSS",
    "residual_scaling",
    "scale the skip instead of the branch",
    parameter="factor",
    values=(0.5, 0.9, 2.0),
    happens="a residual weight (DeepNorm's alpha, a mix of stream and branch) configured for "
    "another depth or architecture",
)
def scale_skip(injection: Injection) -> None:
    """The stream is multiplied by ``factor`` where each sublayer is added."""
    factor = injection.number
    for block in injection.blocks:
        combine_residuals(
            injection.undo, block, lambda residual, branch: factor * residual + branch
        )


@RESIDUAL_WAYS.operator(
    "RLP",
    "residual_path",
    "keep the stream in bfloat16",
    happens="a cast of the hidden states between sublayers, or residual_in_fp32 switched off in a "
    "model whose small updates then fall below the stream's resolution",
)
def round_stream(injection: Injection) -> None:
    """The sum is rounded to 8 significant bits after each sublayer; its dtype stays."""

    def combine(residual: torch.Tensor, branch: torch.Tensor) -> torch.Tensor:
        total = residual + branch
        return total.to(torch.bfloat16).to(total.dtype)

    for block in injection.blocks:
        combine_residuals(injection.undo, block, combine)


@RESIDUAL_WAYS.operator(
    "RDC",
    "residual_path",
    "detach the stream at the skip",
    happens="`residual = hidden.detach()` or `.data`, against an in-place error or to save memory: "
    "the forward pass is right, gradients reach lower layers through the branches only",
)
def detach_skip(injection: Injection) -> None:
    """No gradient flows back along the skip."""
    for block in injection.blocks:
        combine_residuals(
            injection.undo, block, lambda residual, branch: residual.detach() + branch
        )


@RESIDUAL_WAYS.operator(
    "RGV",
    "gradient_clipping",
    "clip each gradient element instead of the norm",
    layered=False,
    parameter="value",
    values=(1e-4, 1e-3, 1e-2),
    happens="clip_grad_value_ with a threshold that was meant for clip_grad_norm_, or gradient "
    "scaling undone only after the clipping",
)
def clip_elements(injection: Injection) -> None:
    """Elements beyond ± ``value`` are cut right before the step: the direction changes too."""
    limit = injection.number

    def cut(weight: torch.Tensor, gradient: torch.Tensor) -> None:
        gradient.clamp_(-limit, limit)

    before_step(injection.undo, injection.training_optimizer, injection.model.parameters(), cut)


@RESIDUAL_WAYS.operator(
    "RDP",
    "dropout_rate",
    "drop whole branches per example",
    parameter="p",
    values=(0.1, 0.3, 0.5),
    happens="stochastic depth (drop_path) left on from another recipe, beside or in place of the "
    "configured dropout",
)
def drop_paths(injection: Injection) -> None:
    """In training mode an example's branch is dropped with probability ``p``, else scaled up."""
    p = injection.number

    def drop_in(layer: nn.Module, block: Block) -> None:
        def combine(residual: torch.Tensor, branch: torch.Tensor) -> torch.Tensor:
            ones = torch.ones(branch.shape[0], 1, 1, dtype=branch.dtype, device=branch.device)
            return residual + branch * F.dropout(ones, p=p, training=layer.training)

        combine_residuals(injection.undo, block, combine)

    for block in injection.blocks:
        drop_in(block.layer, block)
