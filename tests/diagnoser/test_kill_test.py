"""The exact sign-flip test, and what it says of matched trainings."""

from __future__ import annotations

import math

import pytest

from diagnoser.kill_test import WORST, Measured, score, sign_flip, verdicts


def run(seed, validation, operator=None, **more):
    return Measured(
        family="bert",
        kind="encoder",
        seed=seed,
        cause="qkv/dimension" if operator else None,
        operator=operator,
        training=validation,
        validation=validation,
        **more,
    )


CLEAN = [run(seed, 1.0 + seed) for seed in range(5)]


@pytest.mark.parametrize(
    ("differences", "p"),
    [
        ([0.1, 0.2, 0.3, 0.4, 0.5], 1 / 32),  # only as it is
        ([0.1, 0.2, 0.3, 0.4, -0.05], 2 / 32),  # and with the small one turned
        ([-0.1, -0.2, -0.3, -0.4, -0.5], 1.0),
        ([0.0] * 5, 1.0),
        ([0.0, 0.2, 0.3, 0.4, 0.5], 2 / 32),  # the zero's sign does not matter
        ([1.0, -1.0], 3 / 4),
        ([], 1.0),
    ],
)
def test_p_is_the_share_of_sign_patterns_at_least_as_large(differences, p):
    assert sign_flip(differences) == p


def test_equal_sums_count_whatever_their_rounding():
    assert sign_flip([0.1, 0.2, -0.3]) == sign_flip([-0.1, -0.2, 0.3]) == 5 / 8


def test_what_is_worse_on_every_seed_is_killed_and_the_rest_latent():
    worse = [run(seed, 1.2 + seed, "QHD") for seed in range(5)]
    mixed = [run(seed, 1.0 + seed + (0.1 if seed else -0.5), "QHW") for seed in range(5)]
    killed, latent = verdicts([*CLEAN, *worse, *mixed])
    assert (killed.operator, killed.killed, killed.validation_p) == ("QHD", True, 1 / 32)
    assert killed.validation_change == pytest.approx(0.2)
    assert (latent.operator, latent.killed) == ("QHW", False)
    assert score([killed, latent]) == (1, 2)


def test_a_loss_that_is_no_number_is_the_worst():
    lost = [run(seed, math.nan if seed % 2 else math.inf, "QHD") for seed in range(5)]
    (found,) = verdicts([*CLEAN, *lost])
    assert found.killed and found.validation_change == pytest.approx(WORST - 3.0)


def test_a_training_that_raises_is_killed():
    (found,) = verdicts([*CLEAN, *(run(s, 1.0 + s, "QHD", failure="boom") for s in range(5))])
    assert found.killed and found.failure == "boom"


def test_fewer_seeds_give_no_verdict():
    faulty = [run(seed, 9.0, "QHD") for seed in range(5)]
    assert verdicts([*CLEAN[:4], *faulty]) == verdicts([*CLEAN, *faulty[1:]]) == ()
