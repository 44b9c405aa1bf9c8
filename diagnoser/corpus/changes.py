"""Healthy things that look alarming: what people do to a training that is not a fault.

Each is applied to a training in progress, where a faulty run of the same scenario has its fault.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import torch
from torch import Tensor, nn

from diagnoser.corpus.recipe import RATE_FACTORS
from diagnoser.corpus.tasks import Text
from diagnoser.corpus.training import Training
from diagnoser.corpus.vocabulary import PAD, SPECIALS

HIGHEST_RATE = 1e-2
"""Of Adam; other optimizers' in proportion."""


def _scale_rate(training: Training, factor: float) -> None:
    scheduler = training.scheduler
    rates = [float(rate) for rate in scheduler.base_lrs]
    highest = HIGHEST_RATE * RATE_FACTORS[training.recipe.optimizer]
    factor = min(factor, highest / max(rates))
    scheduler.base_lrs = [rate * factor for rate in rates]
    for group in training.optimizer.param_groups:
        group["lr"] *= factor


def _at_next_batch(training: Training, change: Callable[[dict[str, Tensor]], None]) -> None:
    """Let ``change`` alter one batch, the next."""
    loss = training.loss

    def altered(batch: dict[str, Tensor]) -> Tensor:
        training.__dict__.pop("loss")
        change(batch)
        return loss(batch)

    training.__dict__["loss"] = altered


def _spoil_batch(training: Training) -> None:
    """One batch of noise among the data: the loss leaps for a step."""
    rng = training.batches.rng

    def spoil(batch: dict[str, Tensor]) -> None:
        if "pixel_values" in batch:
            batch["pixel_values"] = batch["pixel_values"] * 5
            return
        ids, labels = batch["input_ids"], batch["labels"]
        noise = rng.integers(SPECIALS, training.recipe.size.vocabulary, tuple(ids.shape))
        real = ids != PAD
        batch["input_ids"] = torch.where(real, torch.from_numpy(noise), ids)
        if labels.shape == ids.shape:  # what is asked for is what stands there
            batch["labels"] = torch.where(labels >= 0, batch["input_ids"], labels)

    _at_next_batch(training, spoil)


def _spike_rate(training: Training) -> None:
    """A learning rate ten times as high for one step."""
    groups = training.optimizer.param_groups
    rates = [group["lr"] for group in groups]
    highest = HIGHEST_RATE * RATE_FACTORS[training.recipe.optimizer]
    factor = min(10.0, 3 * highest / max(*rates, 1e-12))
    for group in groups:  # the schedule sets the next step's rate anew
        group["lr"] *= factor


def _raise_rate(training: Training) -> None:
    _scale_rate(training, 3.0)


def _lower_rate(training: Training) -> None:
    _scale_rate(training, 0.1)


def _restart_warmup(training: Training) -> None:
    """A new warm-up from a rate of 0, as after resuming with a fresh schedule."""
    training.recipe = replace(training.recipe, warmup=20)
    training.set_schedule(training.recipe)


def _single_rows(training: Training) -> None:
    training.batches.batch_size = 1


def _shrink_batches(training: Training) -> None:
    training.batches.batch_size = 2


def _grow_batches(training: Training) -> None:
    training.batches.batch_size *= 2


def _shorten_rows(training: Training) -> None:
    if training.batches.kind == "vision":  # a model of images takes one size
        return
    training.batches.length = max(12, training.batches.length // 2)


def _other_padding(training: Training) -> None:
    batches = training.batches
    batches.padding = "right" if batches.padding in ("none", "no_mask") else "none"


def _other_text(training: Training) -> None:
    """A curriculum: from now on only one text for language models, a half of each for classes."""
    text = training.batches.text
    if len(text.streams) > 1 and training.batches.head != "classes":
        streams = text.streams[-1:]
    else:
        streams = tuple(stream[: max(200, len(stream) // 2)] for stream in text.streams)
    training.batches.text = Text(streams, text.vocabulary)


def _freeze(parameters: Iterable[nn.Parameter]) -> None:
    """Neither gradient nor update; what the last step left is dropped."""
    for parameter in parameters:
        parameter.requires_grad_(False)
        parameter.grad = None


def _freeze_bottom(training: Training) -> None:
    """Embeddings and the first block frozen, as in much fine-tuning."""
    modules = list(training.model.modules())
    tables = [module for module in modules if isinstance(module, nn.Embedding | nn.Conv2d)]
    blocks = next(module for module in modules if isinstance(module, nn.ModuleList))
    _freeze([*tables[0].parameters(), *blocks[0].parameters()])


def _freeze_norms(training: Training) -> None:
    """Norms and biases frozen: everything but matrices."""
    _freeze(p for p in training.model.parameters() if p.ndim <= 1)


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
    "freeze_norms": _freeze_norms,
    "single_rows": _single_rows,
    "spike_rate": _spike_rate,
    "spoil_batch": _spoil_batch,
    "forget_moments": _forget_moments,
    "evaluate_often": _evaluate_often,
}
"""Name -> what it does to a training, at the boundary between two steps."""
