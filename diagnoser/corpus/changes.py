"""Healthy things that look alarming: what people do to a training that is not a fault.

Each is applied to a training in progress, where a faulty run of the same scenario has its fault.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from diagnoser.corpus.tasks import Text
from diagnoser.corpus.training import Training

HIGHEST_RATE = 1e-2


def _scale_rate(training: Training, factor: float) -> None:
    scheduler = training.scheduler
    rates = [float(rate) for rate in scheduler.base_lrs]
    factor = min(factor, HIGHEST_RATE / max(rates))
    scheduler.base_lrs = [rate * factor for rate in rates]
    for group in training.optimizer.param_groups:
        group["lr"] *= factor


def _raise_rate(training: Training) -> None:
    _scale_rate(training, 3.0)


def _lower_rate(training: Training) -> None:
    _scale_rate(training, 0.1)


def _restart_warmup(training: Training) -> None:
    """A new warm-up from a rate of 0, as after resuming with a fresh schedule."""
    training.recipe = replace(training.recipe, warmup=20)
    training.set_schedule(training.recipe)


def _shrink_batches(training: Training) -> None:
    training.batches.batch_size = 2


def _grow_batches(training: Training) -> None:
    training.batches.batch_size *= 2


def _shorten_rows(training: Training) -> None:
    training.batches.length = max(12, training.batches.length // 2)


def _other_padding(training: Training) -> None:
    batches = training.batches
    batches.padding = "right" if batches.padding in ("none", "no_mask") else "none"


def _other_text(training: Training) -> None:
    """A curriculum: from now on only one text for language models, a half of each for classes."""
    text = training.batches.text
    if len(text.streams) > 1 and training.batches.task.head != "classes":
        streams = text.streams[-1:]
    else:
        streams = tuple(stream[: max(200, len(stream) // 2)] for stream in text.streams)
    training.batches.text = Text(streams, text.vocabulary)


def _freeze_bottom(training: Training) -> None:
    """Embeddings and the first block frozen, as in much fine-tuning."""
    body = training.model.base_model
    blocks = next(
        part
        for part in (
            getattr(getattr(body, "encoder", None), "layer", None),
            getattr(body, "h", None),
            getattr(body, "layers", None),
        )
        if part is not None
    )
    for module in (training.model.get_input_embeddings(), blocks[0]):
        module.requires_grad_(False)


def _forget_moments(training: Training) -> None:
    """Optimizer state lost, as after a resume that loads the weights only."""
    training.optimizer.state.clear()


def _evaluate_often(training: Training) -> None:
    training.evaluate_every = 4


CHANGES: dict[str, Callable[[Training], None]] = {
    "raise_rate": _raise_rate,
    "lower_rate": _lower_rate,
    "restart_warmup": _restart_warmup,
    "shrink_batches": _shrink_batches,
    "grow_batches": _grow_batches,
    "shorten_rows": _shorten_rows,
    "other_padding": _other_padding,
    "other_text": _other_text,
    "freeze_bottom": _freeze_bottom,
    "forget_moments": _forget_moments,
    "evaluate_often": _evaluate_often,
}
"""Name -> what it does to a training, at the boundary between two steps."""
