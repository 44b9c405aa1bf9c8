"""Which runs the corpus holds: an endless, deterministic plan, balanced at every moment.

A *scenario* is one clean training with its branches. All branches share the recipe, the random
state and the training up to ``inject_step``; from there one stays clean, one goes through a
healthy change, and each of the others runs under its fault. So there are as many clean runs as
faulty ones, and every faulty run has a clean twin.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import numpy as np

from diagnoser.corpus import FIRST_UNSEEN_SEED
from diagnoser.corpus.changes import CHANGES
from diagnoser.corpus.models import build
from diagnoser.corpus.recipe import ROTARY, Family, Recipe, draw_recipe
from diagnoser.corpus.tasks import pairs
from diagnoser.faults import Operator, operators_for

FAULTS_PER_SCENARIO = 2
INTERVALS = (1, 2, 3, 5, 10)
INTERVAL_SHARES = (0.5, 0.27, 0.12, 0.07, 0.04)

Kind = Literal["clean", "faulty"]


@dataclass(frozen=True)
class FaultPlan:
    """Which operator; severity and layers are drawn with ``seed`` when the model stands."""

    operator: str
    category: str
    root_cause: str
    seed: int


@dataclass(frozen=True)
class Branch:
    """One run of a scenario; its trace is ``runs/<id>.trace``."""

    id: str
    change: str | None = None
    fault: FaultPlan | None = None

    @property
    def kind(self) -> Kind:
        return "clean" if self.fault is None else "faulty"


@dataclass(frozen=True)
class Scenario:
    """A clean training and its branches. Steps are counted from where the probe is attached."""

    number: int
    recipe: Recipe
    interval: int
    """Every ``interval``-th step is sampled."""
    unseen_steps: int
    """Steps trained before the probe is attached."""
    inject_step: int
    """First step under the fault or the change; 0: before the first step, and before attach."""
    steps: int
    branches: tuple[Branch, ...]
    """The first is the clean one, the reference for the others."""

    @property
    def group(self) -> str:
        """Model-task pair: what evaluation holds out."""
        return f"{self.recipe.family}/{self.recipe.task}"


@lru_cache(maxsize=8)
def _operators(family: Family) -> tuple[Operator, ...]:
    """Operators that act on a model of the family with several heads."""
    task = next(task for member, task in pairs() if member == family)
    rng = np.random.default_rng(0)
    while True:
        recipe = draw_recipe(family, task, rng)
        if recipe.size.heads > recipe.size.kv_heads > 1 or family not in ROTARY:
            return tuple(operators_for(build(recipe)))


class _Rotation:
    """Operators of a family in an endless order: each category as often as any other, within it
    each root cause, within that each operator."""

    def __init__(self, operators: tuple[Operator, ...], rng: np.random.Generator) -> None:
        self._rng = rng
        self._tree: dict[str, dict[str, list[Operator]]] = {}
        for operator in operators:
            causes = self._tree.setdefault(operator.category, {})
            causes.setdefault(operator.root_cause, []).append(operator)
        self._waiting: dict[str, list[str]] = {}

    def _next(self, name: str, choices: list[str]) -> str:
        """The next of ``choices``; each once, in random order, before any comes again."""
        waiting = self._waiting.setdefault(name, [])
        if not waiting:
            waiting.extend(choices[i] for i in self._rng.permutation(len(choices)))
        return waiting.pop()

    def __next__(self) -> Operator:
        category = self._next("", sorted(self._tree))
        causes = self._tree[category]
        cause = self._next(category, sorted(causes))
        operators = {operator.code: operator for operator in causes[cause]}
        return operators[self._next(f"{category}/{cause}", sorted(operators))]


def _shape(
    pair: tuple[Family, str], at_start: bool, rng: np.random.Generator
) -> tuple[Recipe, int, int, int, int]:
    """Recipe, interval, unseen steps, injection step and steps of a scenario."""
    family, task = pair
    interval = int(rng.choice(INTERVALS, p=INTERVAL_SHARES))
    recipe = draw_recipe(family, task, rng)
    if interval >= 3:  # many steps between samples: keep them cheap
        recipe = replace(
            recipe, batch_size=min(recipe.batch_size, 6), length=min(recipe.length, 40)
        )
    if at_start:
        frames, before, unseen = int(rng.integers(14, 20)), 0, 0
        inject_step = 0
    else:
        fewest, most = (4, 8) if rng.random() < 0.75 else (12, 28)
        before, after = int(rng.integers(fewest, most)), int(rng.integers(10, 15))
        frames = before + after
        fewest, most = ((0, 1), (5, 30), (30, 100))[int(rng.choice(3, p=[0.3, 0.4, 0.3]))]
        unseen = int(rng.integers(fewest, most))
        # anywhere between two samples, since nobody's fault waits for one
        inject_step = before * interval + 1 + int(rng.integers(0, interval))
    # the first step tells the probe the anatomy; samples begin after it
    return recipe, interval, unseen, inject_step, frames * interval + 1


def _scenario(
    number: int,
    pair: tuple[Family, str],
    operators: list[Operator],
    at_start: bool,
    changes: list[str],
    rng: np.random.Generator,
) -> Scenario:
    recipe, interval, unseen, inject_step, steps = _shape(pair, at_start, rng)
    stem = f"{pair[0]}-{pair[1]}-{number:05d}"
    branches = [Branch(f"{stem}-clean")]
    branches += [Branch(f"{stem}-{change}", change=change) for change in changes]
    for index, operator in enumerate(operators):
        seed = int(rng.integers(0, FIRST_UNSEEN_SEED))
        plan = FaultPlan(operator.code, operator.category, operator.root_cause, seed)
        branches.append(Branch(f"{stem}-fault{index}-{operator.code}", fault=plan))
    return Scenario(number, recipe, interval, unseen, inject_step, steps, tuple(branches))


class _Pair:
    """The plan of one model-task pair."""

    def __init__(self, pair: tuple[Family, str], rng: np.random.Generator) -> None:
        self.pair = pair
        self.rng = rng
        self.rotation = _Rotation(_operators(pair[0]), rng)
        self.waiting: dict[bool, list[Operator]] = {True: [], False: []}
        self.changes: list[str] = []

    def scenario(self, number: int) -> Scenario:
        """The next scenario: faults from the first step and faults on the way apart."""
        while True:
            for at_start, operators in self.waiting.items():
                if len(operators) == FAULTS_PER_SCENARIO:
                    self.waiting[at_start] = []
                    changes = [self._change() for _ in range(FAULTS_PER_SCENARIO - 1)]
                    return _scenario(number, self.pair, operators, at_start, changes, self.rng)
            operator = next(self.rotation)
            at_start = operator.moment == "start" or self.rng.random() < 0.3
            self.waiting[at_start].append(operator)

    def _change(self) -> str:
        if not self.changes:
            names = sorted(CHANGES)
            self.changes = [names[i] for i in self.rng.permutation(len(names))]
        return self.changes.pop()


def scenarios(seed: int = 0) -> Iterator[Scenario]:
    """Endless; model-task pairs take turns. The same seed gives the same plan."""
    plans = [
        _Pair(pair, np.random.default_rng([seed, 3, index])) for index, pair in enumerate(pairs())
    ]
    order = np.random.default_rng([seed, 4])
    number = 0
    while True:
        for index in order.permutation(len(plans)):
            yield plans[index].scenario(number)
            number += 1
