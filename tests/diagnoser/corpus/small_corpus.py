"""A scenario small enough to be run for real in a test."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from diagnoser.corpus import execute
from diagnoser.corpus.execute import Begun, Order
from diagnoser.corpus.manifest import Ledger
from diagnoser.corpus.plan import Branch, FaultPlan, Scenario
from diagnoser.corpus.recipe import Recipe, Size

SMALL = Size(layers=2, width=32, heads=2, kv_heads=2, vocabulary=320)


def fault(operator: str, category: str, cause: str, name: str = "") -> Branch:
    return Branch(name or operator, fault=FaultPlan(operator, category, cause, seed=1))


def scenario(*branches: Branch, inject_step: int = 3) -> Scenario:
    recipe = Recipe("gpt2", "lm_source", SMALL, seed=1, batch_size=4, length=24, dropout=0.1)
    return Scenario(0, recipe, 1, 2, inject_step, 9, (Branch("clean"), *branches))


def record_small(folder: Path) -> Path:
    """A clean run, its twin, a healthy change, an effective fault, one that does not fit."""
    branches = (
        Branch("again"),
        Branch("shrink", change="shrink_batches"),
        fault("SDS", "score", "normalization"),
        fault("CST", "no_such", "fault", name="misnamed"),
    )
    one = scenario(*branches)
    odd = replace(branches[3], fault=replace(branches[3].fault, operator="NONE"))
    one = replace(one, branches=(*one.branches[:4], odd))
    ledger = Ledger(folder)
    for event in execute.run(Order(one, folder)):
        if not isinstance(event, Begun):
            ledger.add(event)
    return folder
