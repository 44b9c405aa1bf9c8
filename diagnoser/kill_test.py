"""Does a fault hurt the task? Matched seeds, clean and faulty, and an exact test on their losses.

A fault that is *killed* makes the final loss worse, by a one-sided exact sign-flip test on the
paired differences, p < 0.05; with five seeds it must be worse on every one (the smallest p is
1/32). Any other is *latent*: the model learns the task as well with the fault in it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import product

import msgspec

SEEDS = 5
LEVEL = 0.05
WORST = 100.0
"""Nats; the loss of a training that ends in no number."""

PUBLISHED = {"encoder": 0.817, "decoder": 0.551}
"""Mutation scores of the DEFault++ manuscript (2026), over all categories."""


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """A training's final losses, in nats. ``operator``: None for the clean one of the seed.

    ``failure``: why there is no loss, where the training raised.
    """

    family: str
    kind: str
    """``encoder`` or ``decoder``."""
    seed: int
    cause: str | None = None
    operator: str | None = None
    value: str | float | None = None
    layers: tuple[int, ...] = ()
    training: float = WORST
    validation: float = WORST
    failure: str | None = None


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What a fault does to the task on a family. Differences: medians over the seeds, nats."""

    cause: str
    operator: str
    family: str
    kind: str
    value: str | float | None
    layers: tuple[int, ...]
    seeds: int
    training_change: float
    training_p: float
    validation_change: float
    validation_p: float
    failure: str | None = None
    """What the training raised, on any seed: such a fault is not silent."""

    @property
    def killed(self) -> bool:
        """Whether it hurts what the model is trained for: the validation loss."""
        return self.failure is not None or self.validation_p < LEVEL


class Kills(msgspec.Struct, frozen=True, kw_only=True):
    """All verdicts, and in words what was trained."""

    design: str
    verdicts: tuple[Verdict, ...]


def sign_flip(differences: Sequence[float]) -> float:
    """p of the one-sided exact sign-flip test that the differences are above 0.

    The share of all 2^n ways to choose the signs whose sum is at least the one found. 1 without
    differences.
    """
    magnitudes = [abs(difference) for difference in differences]
    found = math.fsum(differences)
    slack = 1e-9 * max(magnitudes, default=0.0)
    sums = [
        math.fsum(sign * size for sign, size in zip(signs, magnitudes, strict=True))
        for signs in product((1, -1), repeat=len(magnitudes))
    ]
    return sum(total >= found - slack for total in sums) / len(sums)


def _bounded(loss: float) -> float:
    return min(loss, WORST) if math.isfinite(loss) else WORST


def _median(values: Sequence[float]) -> float:
    ordered = sorted(values)
    return (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2


def verdicts(measured: Iterable[Measured]) -> tuple[Verdict, ...]:
    """A verdict for each fault and family that was measured on all :data:`SEEDS` seeds."""
    clean: dict[tuple[str, int], Measured] = {}
    faulty: dict[tuple[str, str], dict[int, Measured]] = {}
    for run in measured:
        if run.operator is None:
            clean[run.family, run.seed] = run
        else:
            faulty.setdefault((run.operator, run.family), {})[run.seed] = run
    found = []
    for (operator, family), by_seed in faulty.items():
        pairs = [
            (clean[family, seed], run)
            for seed, run in sorted(by_seed.items())
            if (family, seed) in clean
        ]
        if len(pairs) < SEEDS:
            continue
        training = [_bounded(run.training) - _bounded(twin.training) for twin, run in pairs]
        validation = [_bounded(run.validation) - _bounded(twin.validation) for twin, run in pairs]
        one = pairs[0][1]
        found.append(
            Verdict(
                cause=one.cause or "",
                operator=operator,
                family=family,
                kind=one.kind,
                value=one.value,
                layers=one.layers,
                seeds=len(pairs),
                training_change=round(_median(training), 4),
                training_p=sign_flip(training),
                validation_change=round(_median(validation), 4),
                validation_p=sign_flip(validation),
                failure=next((run.failure for _, run in pairs if run.failure), None),
            )
        )
    return tuple(sorted(found, key=lambda v: (v.cause, v.operator, v.family)))


def score(found: Iterable[Verdict]) -> tuple[int, int]:
    """(killed, tested)."""
    listed = list(found)
    return sum(verdict.killed for verdict in listed), len(listed)
