"""The plan: deterministic, balanced at every moment, and without anything of the final hold-out."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import replace
from itertools import islice

import pytest

from diagnoser.corpus import FIRST_FINAL_SEED, FIRST_UNSEEN_SEED, holdout
from diagnoser.corpus import plan as planning
from diagnoser.corpus.changes import CHANGES
from diagnoser.corpus.families import FAMILIES
from diagnoser.corpus.plan import (
    HEALTHY_EVERY,
    INTERVALS,
    Scenario,
    final_scenarios,
    operators_of,
    scenarios,
)
from diagnoser.corpus.tasks import TASKS, pairs
from diagnoser.faults import OPERATORS

CATEGORIES = {operator.category for operator in OPERATORS.values()}
TRAINED = [name for name in FAMILIES if name not in holdout.FAMILIES]
COUNT = 450


@pytest.fixture(scope="module")
def plan() -> list[Scenario]:
    return list(islice(scenarios(0), COUNT))


@pytest.fixture(scope="module")
def final() -> list[Scenario]:
    return list(islice(final_scenarios(0), COUNT))


def faulty(plan):
    return [(s, b) for s in plan for b in s.branches if b.fault is not None]


def test_the_same_seed_gives_the_same_plan(plan, final):
    assert list(islice(scenarios(0), 40)) == plan[:40]
    assert list(islice(scenarios(1), 40)) != plan[:40]
    assert list(islice(final_scenarios(0), 40)) == final[:40]


def test_ids_and_seeds(plan, final):
    ids = [branch.id for s in (*plan, *final) for branch in s.branches]
    assert len(ids) == len(set(ids)) >= 6 * COUNT
    assert all("/" not in run for run in ids)
    assert all(s.recipe.seed < FIRST_UNSEEN_SEED for s in plan)
    assert all(branch.fault.seed < FIRST_UNSEEN_SEED for _, branch in faulty(plan))
    assert len({s.recipe.seed for s in plan}) > COUNT - 5


@pytest.mark.parametrize("first", [45, 150, COUNT])
def test_clean_runs_are_never_fewer(plan, first):
    kinds = Counter(b.kind for s in plan[:first] for b in s.branches)
    assert kinds["clean"] > kinds["faulty"] > first
    assert all(s.branches[0].kind == "clean" and not s.branches[0].change for s in plan)


def test_families_and_tasks_are_many_and_take_turns(plan):
    assert len(TRAINED) >= 12 and len(holdout.FAMILIES) == 2
    of_family = Counter(s.recipe.family for s in plan)
    assert set(of_family) == set(TRAINED)
    often = [of_family[f] for f in TRAINED if operators_of(f)]
    seldom = [of_family[f] for f in TRAINED if not operators_of(f)]
    assert max(often) - min(often) <= 1 and max(seldom) - min(seldom) <= 1
    assert 2 * max(seldom) < min(often) and len(often) >= 11
    wanted = {f"{f}/{t}" for f, t in pairs() if f in TRAINED and t not in holdout.TASKS}
    assert {s.group for s in plan} == wanted


def test_categories_of_a_family_are_balanced(plan):
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for scenario, branch in faulty(plan):
        counts[scenario.recipe.family][branch.fault.category] += 1
    for family, found in counts.items():
        assert found.keys() == {operator.category for operator in operators_of(family)}
        assert max(found.values()) - min(found.values()) <= 3, (family, found)


def test_every_root_cause_and_operator_is_there(plan):
    causes = Counter((b.fault.category, b.fault.root_cause) for _, b in faulty(plan))
    assert causes.keys() == {(o.category, o.root_cause) for o in OPERATORS.values()}
    assert min(causes.values()) >= 3
    assert {b.fault.operator for _, b in faulty(plan)} == set(OPERATORS)


def test_operators_are_planned_only_where_they_act(plan, final):
    for scenario, branch in faulty([*plan, *final]):
        operator = OPERATORS[branch.fault.operator]
        assert operator in operators_of(scenario.recipe.family)
        if operator.moment == "start":
            assert scenario.inject_step == 0 and scenario.unseen_steps == 0
            assert scenario.recipe.pretrained == 0
        if operator.category == "kv_cache":
            assert scenario.recipe.padding != "packed"


def test_families_with_a_layout_of_their_own_have_most_faults():
    complete = {name: set() for name in ("electra", "qwen2", "phi3", "distilbert")}
    missing = {"gemma": {"layernorm"}, "opt": {"positional"}, "written_decoder": {"kv_cache"}}
    for family, without in (complete | missing).items():
        categories = {operator.category for operator in operators_of(family)}
        cache = {"kv_cache"} if FAMILIES[family].kind == "encoder" else set()
        assert categories == CATEGORIES - without - cache, family
        assert len(operators_of(family)) > 40
    assert not operators_of("t5") and not operators_of("albert") and not operators_of("vit")


def test_shapes_of_scenarios(plan):
    moments = Counter(s.inject_step == 0 for s in plan)
    assert moments[True] > 40 and moments[False] > 250
    for s in plan:
        frames = (s.steps - 1) // s.interval
        assert 9 <= frames <= 90 and frames * s.recipe.size.layers <= 300
        assert s.inject_step == 0 or 3 * s.interval < s.inject_step <= s.steps - 5 * s.interval
        if s.interval >= 50:
            assert s.recipe.size.width <= 32 and s.recipe.size.layers <= 2
    assert {s.interval for s in plan} == set(INTERVALS)
    assert {b.change for s in plan for b in s.branches if b.change} == set(CHANGES)
    assert sum((s.steps - 1) // s.interval > 45 for s in plan) > 20, "no long clean runs"


def test_trainings_are_of_many_kinds(plan):
    recipes = [s.recipe for s in plan]
    assert {r.optimizer for r in recipes} == {"adamw", "adam", "sgd", "adafactor"}
    assert {r.padding for r in recipes} == {"right", "left", "none", "no_mask", "packed"}
    assert {r.autocast for r in recipes} == {r.adapters for r in recipes} == {True, False}
    assert 0 < sum(r.pretrained > 0 for r in recipes) < COUNT / 2
    assert {r.size.layers for r in recipes} >= {2, 3, 4, 5, 6, 7, 8, 9, 10}
    assert {r.size.width for r in recipes} >= {16, 32, 48, 64, 96, 128, 192}
    healthy = [s for s in plan if not any(b.fault for b in s.branches)]
    assert len(healthy) > COUNT / (HEALTHY_EVERY + 1)
    assert all(s in healthy for s in plan if s.recipe.adapters)


@pytest.mark.parametrize("seed", range(4))
def test_no_training_plan_contains_anything_of_the_final_hold_out(seed):
    for scenario in islice(scenarios(seed), 600):
        recipe = scenario.recipe
        assert recipe.family not in holdout.FAMILIES
        assert recipe.task not in holdout.TASKS
        assert recipe.size.layers < holdout.LARGEST_LAYERS
        assert recipe.size.width < holdout.LARGEST_WIDTH
        assert recipe.seed < FIRST_UNSEEN_SEED < FIRST_FINAL_SEED


def test_a_plan_that_would_contain_it_stops(monkeypatch):
    usual = planning._Draw.recipe
    size = planning.draw_largest("gpt2", planning.np.random.default_rng(0))
    monkeypatch.setattr(
        planning._Draw, "recipe", lambda self, *a: replace(usual(self, *a), size=size)
    )
    with pytest.raises(AssertionError, match="the plan holds what is held out: its size"):
        list(islice(scenarios(0), 3))


def test_the_final_hold_out_has_all_its_parts_and_nothing_else(final):
    why = Counter()
    for scenario in final:
        recipe = scenario.recipe
        assert recipe.seed >= FIRST_FINAL_SEED
        assert all(b.fault.seed >= FIRST_FINAL_SEED for b in scenario.branches if b.fault)
        found = holdout.reason(replace(recipe, seed=0))
        assert found is not None, "only its seed is held out"
        why[found.split()[1].rstrip(",")] += 1
    assert min(why["family"], why["task"], why["size"]) > COUNT / 6
    found = {(s.recipe.family, s.recipe.task) for s in final}
    assert {f for f, _ in found} == set(FAMILIES)
    for family in holdout.FAMILIES:
        assert {t for f, t in found if f == family} == {
            task.name for task in TASKS.values() if family in task.families
        }
    families = Counter(s.recipe.family for s, b in faulty(final))
    assert all(families[family] > 60 for family in holdout.FAMILIES)
