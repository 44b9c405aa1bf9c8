"""The training loop repeats by seed, learns, forks exactly; healthy changes stay healthy."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from diagnoser.corpus.changes import CHANGES
from diagnoser.corpus.families import FAMILIES
from diagnoser.corpus.recipe import Recipe, Size
from diagnoser.corpus.tasks import pairs
from diagnoser.corpus.training import Training, rate_factor, train

SMALL = Size(layers=2, width=32, heads=2, kv_heads=1, vocabulary=320)
FIRST = {f: next(task for family, task in pairs() if family == f) for f in FAMILIES}
CORE = ("bert", "roberta", "gpt2", "llama", "mistral", "qwen3")
SOME = ("bert", "gpt2", "llama", "t5", "vit", "written_decoder", "torch_encoder")
EVERY = [pytest.param(f, marks=() if f in SOME else pytest.mark.matrix) for f in FIRST]


def recipe(family: str = "llama", **changes) -> Recipe:
    padding = FAMILIES[family].paddings[0]
    made = Recipe(family, FIRST[family], SMALL, 3, batch_size=4, length=24, padding=padding)
    return replace(made, **{"dropout": 0.1, **changes})


def losses(training: Training, steps: int) -> list[float]:
    return [loss for _, loss in train(training, steps)]


@pytest.mark.parametrize("family", EVERY)
def test_the_same_recipe_gives_the_same_losses(family):
    one = losses(Training(recipe(family)), 4)
    assert losses(Training(recipe(family)), 4) == one
    assert losses(Training(recipe(family, seed=4)), 4) != one


@pytest.mark.parametrize("family", CORE)
def test_a_small_model_learns_visibly(family):
    found = losses(Training(recipe(family, dropout=0.0, learning_rate=4e-3, batch_size=8)), 60)
    assert sum(found[-10:]) / 10 < found[0] - 1.0


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"optimizer": "adam", "decay_norms": True},
        {"schedule": "cosine", "horizon": 12},
        {"optimizer": "sgd", "learning_rate": 0.03, "schedule": "inverse"},
        {"optimizer": "adafactor", "schedule": "steps", "horizon": 12},
        {"pretrained": 3, "adapters": True},
    ],
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
    stepped = replace(warm, schedule="steps")
    assert [rate_factor(stepped, at) for at in (4, 7, 8, 11)] == pytest.approx([1, 1, 0.3, 0.09])
    inverse = replace(warm, schedule="inverse")
    assert [rate_factor(inverse, at) for at in (20, 80)] == pytest.approx([1, 0.5])


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


def test_a_pretrained_model_starts_lower_with_a_fresh_optimizer():
    fresh, known = (Training(recipe(warmup=0, pretrained=n, dropout=0.0)) for n in (0, 40))
    assert known.evaluate(4) < fresh.evaluate(4) - 0.5
    assert known.steps_done == 0 and not known.optimizer.state
    assert torch.equal(next(known.batches)["input_ids"], next(fresh.batches)["input_ids"])


@pytest.mark.parametrize(("family", "task"), [("llama", "lm_source"), ("bert", "which_module")])
def test_adapters_are_trained_and_little_else(family, task):
    training = Training(recipe(family, task=task, adapters=True, warmup=0))
    moving = {n for n, p in training.model.named_parameters() if p.requires_grad}
    before = {n: p.clone() for n, p in training.model.named_parameters()}
    losses(training, 2)
    changed = {n for n, p in training.model.named_parameters() if not torch.equal(p, before[n])}
    assert changed == moving
    assert any("lora_" in name for name in moving)
    assert all("lora_" in name or "classifier" in name for name in moving)


UNREAD = ("freeze_bottom", "evaluate_often")
ACTING = [
    pytest.param(family, "freeze_bottom", marks=() if family in SOME else pytest.mark.matrix)
    for family in FIRST
] + [
    pytest.param(family, change, marks=() if family == "llama" else pytest.mark.matrix)
    for family in ("llama", "bert", "t5", "vit", "written_decoder", "torch_encoder")
    for change in CHANGES
    if change not in UNREAD and not (family != "llama" and change.startswith(("other_", "shorten")))
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
    assert max(changed) < 12


@pytest.mark.parametrize("change", ["spoil_batch", "spike_rate"])
def test_an_upset_of_a_step_is_over_after_it(change):
    training = Training(recipe(warmup=0, schedule="constant"))
    rates = [group["lr"] for group in training.optimizer.param_groups]
    CHANGES[change](training)
    losses(training, 1)
    assert [group["lr"] for group in training.optimizer.param_groups] == rates
    assert "loss" not in vars(training)


def test_spoiled_batches_make_the_loss_leap():
    training = Training(recipe(warmup=0, dropout=0.0, learning_rate=4e-3, batch_size=8))
    usual = losses(training, 40)[-1]
    CHANGES["spoil_batch"](training)
    spoiled, after = losses(training, 2)
    assert spoiled > usual + 1.0 and spoiled > after + 1.0


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
