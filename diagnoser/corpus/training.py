"""The training loop of the corpus and the demo: an ordinary one, in the open."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch.optim.lr_scheduler import LambdaLR

from diagnoser.corpus import models
from diagnoser.corpus.families import FAMILIES, Batch
from diagnoser.corpus.recipe import Recipe
from diagnoser.corpus.tasks import Batches


def make_optimizer(model: torch.nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's; norms and biases in a group without decay unless the recipe decays them."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    if recipe.decay_norms:
        groups: list[dict[str, Any]] = [{"params": parameters}]
    else:
        groups = [
            {"params": [p for p in parameters if p.ndim > 1]},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ]
    if recipe.optimizer == "adam":  # Adam's weight_decay is an L2 penalty; scripts leave it at 0
        return torch.optim.Adam(groups, lr=recipe.learning_rate, weight_decay=0.0)
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=recipe.learning_rate, momentum=0.9, weight_decay=0.0)
    kind = torch.optim.Adafactor if recipe.optimizer == "adafactor" else torch.optim.AdamW
    return kind(groups, lr=recipe.learning_rate, weight_decay=recipe.weight_decay)


def rate_factor(recipe: Recipe, step: int) -> float:
    """Share of the recipe's learning rate at ``step``: linear warm-up, then the schedule."""
    if step < recipe.warmup:
        return step / recipe.warmup
    progress = min(1.0, (step - recipe.warmup) / max(1, recipe.horizon - recipe.warmup))
    if recipe.schedule == "linear":
        return 1.0 - progress
    if recipe.schedule == "cosine":
        return 0.5 * (1.0 + math.cos(math.pi * progress))
    if recipe.schedule == "inverse":
        return math.sqrt(max(recipe.warmup, 20) / max(recipe.warmup, 20, step))
    if recipe.schedule == "steps":
        return 0.3 ** int(3 * progress)
    return 1.0


class Training:
    """A training in progress. ``step()`` does one optimizer step and returns its loss."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.model: Any = _pretrained(recipe) if recipe.pretrained else models.build(recipe)
        if recipe.adapters:
            self.model = models.adapt(self.model, recipe)
        self.optimizer = make_optimizer(self.model, recipe)
        self.set_schedule(recipe)
        self.batches = Batches(recipe)
        self.evaluate_every: int | None = None
        self.steps_done = 0

    def set_schedule(self, recipe: Recipe) -> None:
        """Starts the recipe's schedule of the learning rate from its step 0."""
        self.scheduler = LambdaLR(self.optimizer, lambda step: rate_factor(recipe, step))

    def loss(self, batch: Batch) -> torch.Tensor:
        """The model's loss on a batch."""
        output = self.model(**FAMILIES[self.recipe.family].arguments(batch))
        found: torch.Tensor = output[1] if isinstance(output, tuple) else output.loss
        return found

    def step(self) -> float:
        """One optimizer step. The loss is the mean over the step's micro-batches."""
        recipe = self.recipe
        total = 0.0
        for _ in range(recipe.accumulate):
            batch = next(self.batches)
            with torch.autocast("cpu", torch.bfloat16, enabled=recipe.autocast):
                loss = self.loss(batch) / recipe.accumulate
            loss.backward()
            total += loss.item()
        if recipe.clip is not None:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), recipe.clip)
        self.optimizer.step()
        self.scheduler.step()
        self.optimizer.zero_grad()
        self.steps_done += 1
        if self.evaluate_every and self.steps_done % self.evaluate_every == 0:
            self.evaluate(batches=1)
        return total

    def evaluate(self, batches: int = 2) -> float:
        """Mean loss in evaluation mode; leaves the training as it found it."""
        data = self.batches.fork()
        self.model.eval()
        with torch.no_grad():
            losses = [self.loss(next(data)).item() for _ in range(batches)]
        self.model.train()
        return sum(losses) / len(losses)

    def fork(self) -> Training:
        """A copy that continues as this one would have, given the same global random state."""
        twin = object.__new__(Training)
        twin.recipe = self.recipe
        twin.model = copy.deepcopy(self.model)
        twin.optimizer = make_optimizer(twin.model, self.recipe)
        twin.optimizer.load_state_dict(copy.deepcopy(self.optimizer.state_dict()))
        twin.set_schedule(self.recipe)
        twin.scheduler.load_state_dict(copy.deepcopy(self.scheduler.state_dict()))
        for group, saved in zip(
            twin.optimizer.param_groups, self.optimizer.param_groups, strict=True
        ):
            group["lr"] = saved["lr"]  # making a scheduler sets the rate of step 0
        twin.batches = self.batches.fork()
        twin.evaluate_every = self.evaluate_every
        twin.steps_done = self.steps_done
        return twin


def _pretrained(recipe: Recipe) -> Any:
    """A model that trained on other batches of the task, as a checkpoint to start from."""
    before = replace(recipe, pretrained=0, adapters=False, autocast=False, schedule="constant")
    training = Training(before)
    training.batches = Batches(before, stream=5)
    for _ in train(training, recipe.pretrained):
        pass
    return training.model


def train(training: Training, steps: int) -> Iterator[tuple[int, float]]:
    """Does ``steps`` steps and yields (step, loss) after each.

    The caller may act between two steps: inject a fault, log a value, stop.
    """
    for _ in range(steps):
        step = training.steps_done
        yield step, training.step()
