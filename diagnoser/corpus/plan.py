"""Which runs the corpus holds: an endless, deterministic plan, balanced at every moment.

A *scenario* is one clean training with its branches. All branches share the recipe, the random
state and the training up to ``inject_step``; from there one stays clean, one goes through a
healthy change, and each of the others runs under its fault. So every faulty run has a clean twin.
Every fourth scenario of a family has no fault: a long clean run and healthy changes, some of an
unusual but valid training. Families take turns, and within a family its tasks; a family that no
fault can be put into comes every third round.

The final hold-out (:mod:`diagnoser.corpus.holdout`) has a plan of its own.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from typing import Literal

import numpy as np
import torch
from numpy.random import Generator

from diagnoser import faults
from diagnoser.corpus import FIRST_FINAL_SEED, FIRST_UNSEEN_SEED, holdout
from diagnoser.corpus.changes import CHANGES
from diagnoser.corpus.families import FAMILIES
from diagnoser.corpus.models import build
from diagnoser.corpus.recipe import Recipe, Size, draw_largest, draw_recipe
from diagnoser.corpus.tasks import TASKS, Batches, pairs
from diagnoser.faults import Operator, operators_for

FAULTS_PER_SCENARIO = 2
MORE_FAULTS = 4
MORE_FROM = 160
"""Scenarios from this one on have ``MORE_FAULTS``: a small corpus is wide, a large one has enough
healthy runs, and faults that share a training cost less."""
HEALTHY_EVERY = 4
"""Every so many scenarios of a family, one has no fault."""
ROUNDS_OF_HEALTHY_FAMILIES = 3
INTERVALS = (1, 2, 3, 5, 10, 20, 50, 100, 200)
INTERVAL_SHARES = (0.44, 0.2, 0.1, 0.08, 0.07, 0.05, 0.03, 0.02, 0.01)

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


@cache
def operators_of(family: str) -> tuple[Operator, ...]:
    """Operators that act on a model of the family with several heads; none where the parts of its
    models are not known.

    Of a family with a layout of its own each is tried once, for its model may call a part in ways
    that an operator does not know.
    """
    entry = FAMILIES[family]
    task = next(task for member, task in pairs() if member == family)
    size = Size(3, 32, 4, 2 if entry.grouped else 4, 512)
    recipe = Recipe(
        family, task, size, seed=0, batch_size=2, length=16, padding=entry.paddings[0], dropout=0.1
    )
    with torch.random.fork_rng():
        model = build(recipe)
        try:
            found = [o for o in operators_for(model) if o.category not in entry.without]
        except ValueError:
            return ()
        if entry.layout is None:
            return tuple(found)
        batch = entry.arguments(next(Batches(recipe)))
        return tuple(operator for operator in found if _runs(operator, model, batch))


def _runs(operator: Operator, model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> bool:
    optimizer = torch.optim.AdamW(model.parameters())
    with suppress(Exception):
        fault = faults.draw(
            model, random.Random(0), operator=operator.code, optimizer=optimizer, length=16
        )
        with faults.inject(model, optimizer, fault), torch.no_grad():
            model(**batch)
        return True
    return False


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


_FRAMES_AT = {1: 99, 50: 16, 100: 11, 200: 9}
"""Fewest steps between samples -> most frames: longer runs would take too long."""

LAYERS_READ = 300
"""Most frames of a run times the layers of its model: what its samples cost."""


def _thrifty(recipe: Recipe, interval: int) -> Recipe:
    """The recipe with cheaper steps where many lie between two samples."""
    if interval < 3:
        return recipe
    size = recipe.size
    most_layers = 6 if interval < 10 else 4 if interval < 50 else 2
    most_width = 128 if interval < 10 else 64 if interval < 50 else 32
    if size.width > most_width:  # a width of 32 has room for 4 heads
        size = replace(
            size, width=most_width, heads=2, kv_heads=1 if size.kv_heads < size.heads else 2
        )
    length = min(recipe.length, 40 if interval < 10 else 32 if interval < 50 else 24)
    return replace(
        recipe,
        size=replace(size, layers=min(size.layers, most_layers)),
        batch_size=min(recipe.batch_size, 6 if interval < 50 else 4),
        length=length,
        accumulate=1 if interval >= 10 else recipe.accumulate,
        autocast=recipe.autocast and interval < 10,
    )


@dataclass(frozen=True)
class _Times:
    """When things happen in a scenario."""

    interval: int
    unseen: int
    inject_step: int
    steps: int


def _times(at_start: bool, long: bool, interval: int, layers: int, rng: Generator) -> _Times:
    most = min(frames for at, frames in _FRAMES_AT.items() if interval >= at)
    if at_start:
        frames = min(most, int(rng.integers(14, 20)))
        return _Times(interval, 0, 0, frames * interval + 1)
    fewest, many = (4, 8) if rng.random() < 0.75 else (12, 28)
    before, after = int(rng.integers(fewest, many)), int(rng.integers(10, 15))
    if long and interval <= 5:
        after += int(rng.integers(20, 50))
    most = min(most, max(14, LAYERS_READ // layers))
    if before + after > most:
        before = min(before, most // 3)
        after = most - before
    fewest, many = ((0, 1), (5, 30), (30, 100))[int(rng.choice(3, p=[0.3, 0.4, 0.3]))]
    unseen = int(rng.integers(fewest, many))
    # anywhere between two samples, since nobody's fault waits for one
    inject_step = before * interval + 1 + int(rng.integers(0, interval))
    # the first step tells the probe the anatomy; samples begin after it
    return _Times(interval, unseen, inject_step, (before + after) * interval + 1)


def _unusual(recipe: Recipe, rng: Generator) -> Recipe:
    """A training that is valid but seldom seen."""
    choices = ["one_head", "heavy_dropout", "narrow", "heavy_decay", "no_warmup", "one_row"]
    if FAMILIES[recipe.family].adapters:
        choices += ["adapters"] * 3
    kind, size = choices[int(rng.integers(len(choices)))], recipe.size
    if kind == "adapters":
        return replace(recipe, adapters=True, pretrained=max(recipe.pretrained, 60), autocast=False)
    if kind == "one_head":
        return replace(recipe, size=replace(size, heads=1, kv_heads=1))
    if kind == "heavy_dropout":
        return replace(recipe, dropout=0.4)
    if kind == "narrow":
        return replace(recipe, size=replace(size, width=16, heads=2, kv_heads=2))
    if kind == "heavy_decay":
        return replace(recipe, weight_decay=0.3, decay_norms=False)
    if kind == "no_warmup":
        return replace(recipe, warmup=0, pretrained=0, clip=None)
    return replace(recipe, batch_size=1)


@dataclass(frozen=True)
class _Draw:
    """From where a plan takes its trainings. ``largest``: sizes beyond those trained on."""

    prefix: str
    first_seed: int
    largest: bool = False

    def recipe(self, pair: tuple[str, str], rng: Generator) -> Recipe:
        family, task = pair
        recipe = draw_recipe(family, task, TASKS[task].head(family), rng)
        if self.largest:
            recipe = replace(recipe, size=draw_largest(family, rng), pretrained=0)
        return replace(recipe, seed=recipe.seed + self.first_seed)


class _Operators:
    """The faults of a family, in an order shared by its tasks."""

    def __init__(self, family: str, rng: Generator) -> None:
        self.available = operators_of(family)
        self._rotation = _Rotation(self.available, rng)
        self._waiting: dict[bool, list[Operator]] = {True: [], False: []}
        self._rng = rng

    def take(self, count: int) -> tuple[bool, list[Operator]]:
        """The next faults of a scenario: those from the first step and those on the way apart."""
        while True:
            for at_start, waiting in self._waiting.items():
                if len(waiting) >= count:
                    self._waiting[at_start] = []
                    return at_start, waiting
            operator = next(self._rotation)
            at_start = operator.moment == "start" or self._rng.random() < 0.3
            self._waiting[at_start].append(operator)


class _Family:
    """The plan of a family: its tasks in turn."""

    def __init__(self, family: str, tasks: list[str], draw: _Draw, rng: Generator) -> None:
        self._family, self._tasks, self._draw, self._rng = family, tasks, draw, rng
        self._operators = _Operators(family, rng)
        self._waiting: dict[str, list[str]] = {"task": [], "change": []}
        self._count = 0

    @property
    def healthy_only(self) -> bool:
        return not self._operators.available

    def _next(self, name: str, choices: list[str]) -> str:
        waiting = self._waiting[name]
        if not waiting:
            waiting.extend(choices[i] for i in self._rng.permutation(len(choices)))
        return waiting.pop()

    def _changes(self, count: int) -> list[str]:
        """Different ones: a run is named by its change."""
        found: list[str] = []
        while len(found) < count:
            change = self._next("change", sorted(CHANGES))
            if change not in found:
                found.append(change)
        return found

    def scenario(self, number: int) -> Scenario:
        """The next of the family."""
        self._count += 1
        healthy = self.healthy_only or self._count % HEALTHY_EVERY == 0
        count = FAULTS_PER_SCENARIO if number < MORE_FROM else MORE_FAULTS
        at_start, operators = (False, []) if healthy else self._operators.take(count)
        pair = (self._family, self._next("task", self._tasks))
        recipe = self._draw.recipe(pair, self._rng)
        interval = int(self._rng.choice(INTERVALS, p=INTERVAL_SHARES))
        if self._draw.largest:
            interval = min(interval, 2)
        else:
            if healthy and self._rng.random() < 0.5:
                recipe = _unusual(recipe, self._rng)
            recipe = _thrifty(recipe, interval)
        if at_start:
            recipe = replace(recipe, pretrained=0)
        if recipe.padding == "packed" and any(o.category == "kv_cache" for o in operators):
            recipe = replace(recipe, padding="none")  # what packs may not cache
        times = _times(at_start, healthy, interval, recipe.size.layers, self._rng)
        stem = f"{self._draw.prefix}{pair[0]}-{pair[1]}-{number:05d}"
        branches = [Branch(f"{stem}-clean")]
        for change in self._changes(2 if healthy else 1):
            branches.append(Branch(f"{stem}-{change}", change=change))
        for index, operator in enumerate(operators):
            seed = self._draw.first_seed + int(self._rng.integers(0, FIRST_UNSEEN_SEED))
            plan = FaultPlan(operator.code, operator.category, operator.root_cause, seed)
            branches.append(Branch(f"{stem}-fault{index}-{operator.code}", fault=plan))
        return Scenario(
            number,
            recipe,
            times.interval,
            times.unseen,
            times.inject_step,
            times.steps,
            tuple(branches),
        )


def _plan(parts: list[tuple[str, list[str], _Draw]], seed: list[int]) -> Iterator[Scenario]:
    """Endless; the parts (family, tasks, draw) take turns."""
    plans = [
        _Family(family, tasks, draw, np.random.default_rng([*seed, 3, index]))
        for index, (family, tasks, draw) in enumerate(parts)
    ]
    order = np.random.default_rng([*seed, 4])
    number = turn = 0
    while True:
        for index in order.permutation(len(plans)):
            if plans[index].healthy_only and turn % ROUNDS_OF_HEALTHY_FAMILIES:
                continue
            yield plans[index].scenario(number)
            number += 1
        turn += 1


def _tasks_by_family() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for family, task in pairs():
        found.setdefault(family, []).append(task)
    return found


def scenarios(seed: int = 0) -> Iterator[Scenario]:
    """What may be trained on: endless, nothing of the final hold-out. The same seed gives the
    same plan."""
    draw = _Draw("", 0)
    parts = [
        (family, [task for task in tasks if task not in holdout.TASKS], draw)
        for family, tasks in _tasks_by_family().items()
        if family not in holdout.FAMILIES
    ]
    for scenario in _plan(parts, [seed]):
        why = holdout.reason(scenario.recipe)
        if why is not None:
            raise AssertionError(f"the plan holds what is held out: {why}")
        yield scenario


def final_scenarios(seed: int = 0) -> Iterator[Scenario]:
    """The final hold-out: its families on all tasks, its tasks and its sizes on all families.

    Endless. Every seed in it is its own.
    """
    draw = _Draw("final-", FIRST_FINAL_SEED)
    largest = replace(draw, prefix="final-large-", largest=True)
    parts: list[tuple[str, list[str], _Draw]] = []
    for family, tasks in _tasks_by_family().items():
        if family in holdout.FAMILIES:
            parts += [(family, tasks, draw)] * 4
            continue
        held = [task for task in tasks if task in holdout.TASKS]
        if held:
            parts.append((family, held, draw))
        parts.append((family, [task for task in tasks if task not in holdout.TASKS], largest))
    yield from _plan(parts, [seed, 7])
