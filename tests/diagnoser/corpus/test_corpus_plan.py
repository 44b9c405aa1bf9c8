"""The plan: deterministic, balanced at every moment, every category in every held-out group."""

from __future__ import annotations

from collections import Counter, defaultdict
from itertools import islice

import pytest

from diagnoser.corpus import FIRST_UNSEEN_SEED
from diagnoser.corpus.changes import CHANGES
from diagnoser.corpus.plan import Scenario, scenarios
from diagnoser.corpus.recipe import DECODERS, ENCODERS
from diagnoser.corpus.tasks import pairs
from diagnoser.faults import OPERATORS
from diagnoser.manifest import LINEAGES

CATEGORIES = {operator.category for operator in OPERATORS.values()}


@pytest.fixture(scope="module")
def plan() -> list[Scenario]:
    return list(islice(scenarios(0), 375))


def faulty(plan):
    return [(s, b) for s in plan for b in s.branches if b.fault is not None]


def test_the_same_seed_gives_the_same_plan(plan):
    assert list(islice(scenarios(0), 40)) == plan[:40]
    assert list(islice(scenarios(1), 40)) != plan[:40]


def test_ids_and_seeds(plan):
    ids = [branch.id for s in plan for branch in s.branches]
    assert len(ids) == len(set(ids)) >= 1500
    assert all("/" not in run for run in ids)
    assert all(s.recipe.seed < FIRST_UNSEEN_SEED for s in plan)
    assert all(branch.fault.seed < FIRST_UNSEEN_SEED for _, branch in faulty(plan))
    assert len({s.recipe.seed for s in plan}) > 370


@pytest.mark.parametrize("first", [45, 150, 375])
def test_clean_runs_are_never_fewer(plan, first):
    kinds = Counter(b.kind for s in plan[:first] for b in s.branches)
    assert kinds["clean"] >= kinds["faulty"] > 0
    assert all(s.branches[0].kind == "clean" and not s.branches[0].change for s in plan)


@pytest.mark.parametrize("first", [150, 375])
def test_categories_are_balanced_at_any_moment(plan, first):
    counts = Counter(
        b.fault.category for s, b in faulty(plan[:first]) if s.recipe.family in DECODERS
    )
    assert counts.keys() == CATEGORIES
    assert max(counts.values()) <= 1.5 * min(counts.values())


def test_every_category_is_in_every_group(plan):
    found = defaultdict(set)
    for scenario, branch in faulty(plan):
        found[scenario.group].add(branch.fault.category)
    assert set(found) == {f"{family}/{task}" for family, task in pairs()}
    for group, categories in found.items():
        missing = {"kv_cache"} if group.split("/")[0] in ENCODERS else set()
        assert categories == CATEGORIES - missing, group


def test_every_root_cause_and_operator_is_there(plan):
    causes = Counter((b.fault.category, b.fault.root_cause) for _, b in faulty(plan))
    assert causes.keys() == {(o.category, o.root_cause) for o in OPERATORS.values()}
    assert min(causes.values()) >= 3
    assert {b.fault.operator for _, b in faulty(plan)} == set(OPERATORS)


def test_operators_are_planned_only_where_they_act(plan):
    for scenario, branch in faulty(plan):
        operator = OPERATORS[branch.fault.operator]
        family = scenario.recipe.family
        assert LINEAGES.get(family, family) in operator.families
        if operator.moment == "start":
            assert scenario.inject_step == 0 and scenario.unseen_steps == 0


def test_shapes_of_scenarios(plan):
    moments = Counter(s.inject_step == 0 for s in plan)
    assert moments[True] > 60 and moments[False] > 150
    for s in plan:
        assert 14 <= (s.steps - 1) // s.interval <= 45
        assert s.inject_step == 0 or 4 * s.interval < s.inject_step <= s.steps - 8 * s.interval
    assert {s.interval for s in plan} == {1, 2, 3, 5, 10}
    assert {b.change for s in plan for b in s.branches if b.change} == set(CHANGES)
