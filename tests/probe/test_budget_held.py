"""The budget holds what it promises, on a simulated clock, for quick and slow models alike."""

from __future__ import annotations

import itertools
import random

import pytest

from probe.budget import CREDIT_SECONDS, CREDIT_STEPS, WEIGHT, Budget

COUNTER = 15e-6
"""Seconds of probe time that an unsampled step costs."""

SHARES = [0.005, 0.02, 0.1]
MODELS = {
    # seconds a step takes, seconds a sample costs
    "5 ms steps": (0.005, 0.012),
    "5 ms steps, dear samples": (0.005, 0.1),
    "1 s steps": (1.0, 0.25),
    "1 s steps, dear samples": (1.0, 2.5),
}


class Simulated:
    """A training on a clock of its own. ``cost`` and ``step`` may vary with the step."""

    def __init__(self, share, step, cost, seed=0):
        self.budget = Budget(None, share)
        self.step, self.cost = step, cost
        self.trained, self.spent, self.sampled = [], [], []
        self.random = random.Random(seed)

    def run(self, steps):
        for at in range(len(self.trained), len(self.trained) + steps):
            wanted = self.budget.wants(at)
            cost = self.cost(at, len(self.sampled)) if wanted else COUNTER
            seconds = self.step(at)
            self.budget.step_done(at, seconds, cost, wanted)
            self.trained.append(seconds)
            self.spent.append(cost)
            if wanted:
                self.sampled.append(at)
        return self

    def share(self, first=0, last=None):
        return sum(self.spent[first:last]) / sum(self.trained[first:last])


def noisy(mean, spread, seed):
    generator = random.Random(seed)
    return lambda *_: mean * generator.lognormvariate(0.0, spread)


def simulated(model, share, spread=0.3):
    step, cost = MODELS[model]
    costs = noisy(cost, spread, 1)
    # The first sample pays for imports and caches as well.
    return Simulated(
        share, noisy(step, spread, 2), lambda at, n: costs() * (8.0 if n == 0 else 1.0)
    )


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("model", MODELS)
def test_the_share_is_kept_over_a_whole_run(model, share):
    run = simulated(model, share).run(40_000)
    step, cost = MODELS[model]
    # What may be spent in advance, and the samples taken before anything is known of their cost.
    advance = max(share * CREDIT_STEPS * step, CREDIT_SECONDS) + 12 * cost
    trained = sum(run.trained)
    assert run.share() * trained <= share * trained + advance
    if advance < 0.1 * share * trained:
        assert run.share() <= share * 1.1


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("model", MODELS)
def test_once_settled_it_is_kept_in_every_stretch(model, share):
    run = simulated(model, share).run(40_000)
    step, cost = MODELS[model]
    # Long enough for twenty samples at the steady distance, short enough for half the run.
    stretch = min(20_000, max(400, int(20 * cost / (share * step))))
    for first in (20_000, 40_000 - stretch):
        assert run.share(first, first + stretch) <= share * 1.25, first


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("model", MODELS)
def test_what_may_be_spent_is_used(model, share):
    run = simulated(model, share).run(40_000)
    every_step = len(run.sampled) == 40_000
    assert every_step or run.share() * WEIGHT >= 0.6 * share


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("model", MODELS)
def test_the_first_samples_come_at_once_and_gaps_grow_to_a_steady_distance(model, share):
    run = simulated(model, share, spread=0.0).run(40_000)
    assert run.sampled[:2] == [0, 1]
    step, cost = MODELS[model]
    # What unsampled steps cost is paid from the same budget.
    steady = max(1.0, WEIGHT * cost / (share * step - COUNTER))
    late = [b - a for a, b in itertools.pairwise(run.sampled) if a > 20_000]
    if len(late) > 5:
        assert max(late) <= 11 * steady + 1
        assert sum(late) / len(late) == pytest.approx(steady, rel=0.3, abs=1.0)


@pytest.mark.parametrize("share", SHARES)
def test_a_sample_that_grows_dearer_is_taken_more_rarely(share):
    """Longer sequences from half way on: a sample costs ten times as much."""
    run = Simulated(share, lambda at: 0.05, lambda at, n: 0.01 if at < 20_000 else 0.1)
    run.run(60_000)
    assert run.share(30_000) <= share * 1.1
    before = sum(s < 20_000 for s in run.sampled)
    after = sum(s >= 40_000 for s in run.sampled)
    assert after < before


@pytest.mark.parametrize("share", SHARES)
def test_steps_that_grow_quicker_do_not_break_it(share):
    """After a warm-up (compilation, a cold cache) steps take a tenth of the time."""
    run = Simulated(share, lambda at: 0.5 if at < 200 else 0.05, lambda at, n: 0.02)
    run.run(40_000)
    assert run.share() <= share * 1.1
    assert run.share(20_000) <= share * 1.25


def test_a_single_pause_in_the_clock_does_not_silence_it():
    """One sample during which the machine was suspended."""
    run = Simulated(0.02, lambda at: 0.1, lambda at, n: 60.0 if n == 20 else 0.05)
    run.run(60_000)
    after = [s for s in run.sampled if s > run.sampled[20]]
    assert len(after) > 100
