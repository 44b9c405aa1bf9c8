"""The training loop repeats by seed, learns, forks exactly; healthy changes stay healthy."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from diagnoser.corpus.changes import CHANGES
from diagnoser.corpus.recipe import ENCODERS, FAMILIES, Recipe, Size
from diagnoser.corpus.training import Training, rate_factor, train

SMALL = Size(layers=2, width=32, heads=2, kv_heads=1, vocabulary=320)
FIRST = {f: "mlm_source" if f in ENCODERS else "lm_source" for f in FAMILIES}


def recipe(family: str = "llama", **changes) -> Recipe:
    made = Recipe(family, FIRST[family], SMALL, seed=3, batch_size=4, length=24)
    return replace(made, **{"dropout": 0.1, **changes})


def losses(training: Training, steps: int) -> list[float]:
    return [loss for _, loss in train(training, steps)]


@pytest.mark.parametrize("family", FIRST)
def test_the_same_recipe_gives_the_same_losses(family):
    one = losses(Training(recipe(family)), 4)
    assert losses(Training(recipe(family)), 4) == one
    assert losses(Training(recipe(family, seed=4)), 4) != one


@pytest.mark.parametrize("family", FIRST)
def test_a_small_model_learns_visibly(family):
    found = losses(Training(recipe(family, dropout=0.0, learning_rate=4e-3, batch_size=8)), 60)
    assert sum(found[-10:]) / 10 < found[0] - 1.0


@pytest.mark.parametrize(
    "changes",
    [{}, {"optimizer": "adam", "decay_norms": True}, {"schedule": "cosine", "horizon": 12}],
)
def test_a_fork_goes_on_as_the_original_would(changes):
    original = Training(recipe(**changes))
    losses(original, 5)
    state = torch.get_rng_state()
    twin = original.fork()
    there = losses(original, 5)
    torch.set_rng_state(state)
    assert losses(twin, 5) == there
    for left, right in zip(original.model.parameters(), twin.model.parameters(), strict=True):
        assert torch.equal(left, right) and left is not right


def test_rates_follow_the_schedule():
    warm = recipe(warmup=4, schedule="linear", horizon=14, learning_rate=1e-3)
    training = Training(warm)
    rates = []
    for _ in range(6):
        rates.append(training.optimizer.param_groups[0]["lr"])
        training.step()
    assert rates == pytest.approx([0, 0.25e-3, 0.5e-3, 0.75e-3, 1e-3, 0.9e-3])
    assert rate_factor(warm, 100) == 0.0


def test_decay_spares_norms_and_biases_unless_asked_for():
    spared = Training(recipe(weight_decay=0.1)).optimizer.param_groups
    assert [group["weight_decay"] for group in spared] == [0.1, 0.0]
    assert all(p.ndim <= 1 for p in spared[1]["params"])
    plain = Training(recipe(weight_decay=0.1, decay_norms=True)).optimizer.param_groups
    assert [group["weight_decay"] for group in plain] == [0.1]


def test_accumulation_takes_several_batches_a_step():
    training = Training(recipe(accumulate=2))
    twin = training.batches.fork()
    training.step()
    next(twin), next(twin)
    assert torch.equal(next(twin)["input_ids"], next(training.batches)["input_ids"])


ACTING = [(family, "freeze_bottom") for family in FIRST] + [
    ("llama", change) for change in CHANGES if change not in ("freeze_bottom", "evaluate_often")
]


@pytest.mark.parametrize(("family", "change"), ACTING)
def test_a_healthy_change_acts_and_trains_on(family, change):
    training = Training(recipe(family, warmup=0, batch_size=6))
    losses(training, 3)
    state = torch.get_rng_state()
    twin = training.fork()
    CHANGES[change](twin)
    changed = losses(twin, 4)
    torch.set_rng_state(state)
    plain = losses(training, 4)
    assert changed != plain
    assert all(torch.isfinite(p).all() for p in twin.model.parameters())
    assert max(changed) < 10


def test_frozen_parameters_stand_still():
    training = Training(recipe(warmup=0))
    CHANGES["freeze_bottom"](training)
    frozen = {n: p.clone() for n, p in training.model.named_parameters() if not p.requires_grad}
    assert any("embed_tokens" in name for name in frozen)
    assert any("layers.0" in name for name in frozen)
    assert not any("layers.1" in name for name in frozen)
    losses(training, 2)
    assert all(torch.equal(training.model.get_parameter(n), p) for n, p in frozen.items())


def test_evaluations_in_between_leave_the_training_as_it_was():
    training = Training(recipe())
    state = torch.get_rng_state()
    twin = training.fork()
    modes = []
    CHANGES["evaluate_often"](twin)
    twin.model.register_forward_pre_hook(lambda module, inputs: modes.append(module.training))
    evaluated = losses(twin, 8)
    torch.set_rng_state(state)
    assert losses(training, 8) == evaluated
    assert modes.count(False) == 2 and modes.count(True) == 8
