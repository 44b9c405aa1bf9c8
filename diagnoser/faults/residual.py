"""Residual faults: skip removed, branch scaled or noisy, dropout and gradient clipping."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from diagnoser.faults.fault import Clean, Injection, Table, Value
from diagnoser.faults.override import set_attribute, wrap_step
from diagnoser.faults.residual_path import combine_residuals

RESIDUAL = Table("residual")


@RESIDUAL.operator("RRS", "skip_connection", "remove the skip connection")
def remove_skip(injection: Injection) -> None:
    """The layers' two residual additions pass on the branch alone."""
    for block in injection.blocks:
        combine_residuals(injection.undo, block, lambda residual, branch: branch)


@RESIDUAL.operator(
    "RSR",
    "residual_scaling",
    "scale the residual branch",
    parameter="factor",
    values=(0.5, 2.0, 5.0),
)
def scale_branch(injection: Injection) -> None:
    """What the sublayer adds to the stream is multiplied by ``factor``."""
    factor = injection.number
    for block in injection.blocks:
        combine_residuals(
            injection.undo, block, lambda residual, branch: residual + factor * branch
        )


@RESIDUAL.operator(
    "RIN", "residual_path", "noise on the residual path", parameter="sigma", values=(0.01, 0.1, 1.0)
)
def add_noise(injection: Injection) -> None:
    """Fresh Gaussian noise is added to the stream after each sublayer, in every forward."""
    sigma = injection.number
    # A generator of its own: the training's dropout keeps its random numbers.
    generator = torch.Generator().manual_seed(injection.fault.seed)

    def combine(residual: torch.Tensor, branch: torch.Tensor) -> torch.Tensor:
        total = residual + branch
        noise = torch.randn(total.shape, generator=generator)
        return total + sigma * noise.to(total.device, total.dtype)

    for block in injection.blocks:
        combine_residuals(injection.undo, block, combine)


_CLIPS: tuple[Value, ...] = (0.1, 1.0, 10.0)
_UNNOTICED = (1.0, 10.0)
"""In a loop that did not clip: what the Trainer of transformers clips to is no fault, and more than
that would hardly ever clip."""


def _other_clips(clean: Clean) -> tuple[Value, ...]:
    excused = _UNNOTICED if clean.clip is None else (clean.clip,)
    return tuple(v for v in _CLIPS if v not in excused)


@RESIDUAL.operator(
    "RGC",
    "gradient_clipping",
    "different gradient clipping threshold",
    layered=False,
    parameter="value",
    values=_CLIPS,
    choices=_other_clips,
)
def change_clipping(injection: Injection) -> None:
    """Gradients are clipped at ``value`` instead of at the training loop's own threshold.

    A fault of the training loop: while it lasts, ``torch.nn.utils.clip_grad_norm_`` (which
    accelerate and the Trainer call) uses the fault's threshold for this model's parameters; in a
    loop that does not clip, the gradients are clipped right before ``optimizer.step``.
    """
    threshold, model = injection.number, injection.model
    original: Callable[..., Any] = nn.utils.clip_grad_norm_
    own = {id(parameter) for parameter in model.parameters()}
    clipped = False

    def clip(parameters: Any, max_norm: float, *args: Any, **kwargs: Any) -> Any:
        nonlocal clipped
        given = [parameters] if isinstance(parameters, torch.Tensor) else list(parameters)
        if any(id(parameter) in own for parameter in given):
            clipped = True
            max_norm = threshold
        return original(given, max_norm, *args, **kwargs)

    def build(step: Callable[..., Any]) -> Callable[..., Any]:
        def clipped_step(*args: Any, **kwargs: Any) -> Any:
            nonlocal clipped
            if not clipped:
                original(list(model.parameters()), threshold)
            clipped = False
            return step(*args, **kwargs)

        return clipped_step

    set_attribute(injection.undo, nn.utils, "clip_grad_norm_", clip)
    wrap_step(injection.undo, injection.training_optimizer, build)


_DROPOUTS: tuple[Value, ...] = (0.1, 0.3, 0.5)


def _other_dropouts(clean: Clean) -> tuple[Value, ...]:
    dropouts = clean.anatomy.blocks[0].residual_dropouts
    own = dropouts[0].p if dropouts else 0.0
    return tuple(p for p in _DROPOUTS if p != own)


@RESIDUAL.operator(
    "RDR",
    "dropout_rate",
    "different residual dropout",
    parameter="p",
    values=_DROPOUTS,
    choices=_other_dropouts,
)
def change_dropout(injection: Injection) -> None:
    """The residual branches are dropped at another rate; Llama, which has none, gets one."""
    p = injection.number
    for block in injection.blocks:
        if block.residual_dropouts:
            for dropout in block.residual_dropouts:
                set_attribute(injection.undo, dropout, "p", p)
            continue
        layer = block.layer

        def combine(
            residual: torch.Tensor, branch: torch.Tensor, layer: nn.Module = layer
        ) -> torch.Tensor:
            return residual + F.dropout(branch, p=p, training=layer.training)

        combine_residuals(injection.undo, block, combine)
