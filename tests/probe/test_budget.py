from __future__ import annotations

import math

import pytest

from probe.budget import CREDIT_SECONDS, CREDIT_STEPS, WEIGHT, Budget


def run(budget: Budget, steps: int, step_time: float, cost: float) -> list[int]:
    """Steps that were sampled when each step takes ``step_time`` and a sample costs ``cost``."""
    sampled = []
    for step in range(steps):
        wanted = budget.wants(step)
        if wanted:
            sampled.append(step)
        budget.step_done(step, step_time, cost if wanted else 1e-5, wanted)
    return sampled


def test_an_exact_interval_is_kept():
    assert run(Budget(5, None), 21, 0.1, 1.0) == [0, 5, 10, 15, 20]


@pytest.mark.parametrize("share", [0.005, 0.02, 0.1])
@pytest.mark.parametrize(("step_time", "cost"), [(0.005, 0.02), (1.0, 0.1), (0.1, 0.001)])
def test_the_share_is_held_in_the_long_run(share, step_time, cost):
    budget = Budget(None, share)
    sampled = run(budget, 20_000, step_time, cost)
    spent = len(sampled) * cost
    credit = max(share * CREDIT_STEPS * step_time, CREDIT_SECONDS) + 2 * cost
    assert spent <= share * 20_000 * step_time + credit
    # and it is used: not far below what is allowed, unless every step is sampled already
    assert len(sampled) == 20_000 or WEIGHT * spent >= 0.5 * share * 20_000 * step_time


def test_a_young_run_is_seen_more_densely_than_an_old_one():
    sampled = run(Budget(None, 0.02), 5000, 0.1, 0.05)
    early = sum(step < 100 for step in sampled)
    late = sum(step >= 4900 for step in sampled)
    assert early >= 1.5 * late > 0


def test_a_small_model_is_seen_at_once_though_its_samples_cost_more_than_its_steps():
    budget, sampled = Budget(None, 0.02), []
    for step in range(3000):
        wanted = budget.wants(step)
        cost = (0.04 if sampled else 0.4) if wanted else 1e-5  # the first pays for imports
        sampled += [step] if wanted else []
        budget.step_done(step, 0.02, cost, wanted)
    assert sum(step < 60 for step in sampled) >= 8
    assert budget.overhead <= 0.02


def test_a_person_may_ask_for_a_sample():
    budget = Budget(1000, None)
    budget.step_done(0, 0.1, 0.01, True)
    assert not budget.wants(1)
    budget.ask()
    assert budget.wants(2)
    assert not budget.wants(3)


def test_overhead_is_unknown_before_the_first_step():
    budget = Budget(None, 0.02)
    assert math.isnan(budget.overhead)
    budget.step_done(0, 1.0, 0.01, True)
    assert budget.overhead == pytest.approx(0.01)
