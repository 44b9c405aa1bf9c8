"""The ways beyond the 52: each acts, touches nothing else, and every root cause has one."""

from __future__ import annotations

import random

import pytest
import torch
from fault_observations import (
    BUILDERS,
    FAMILIES,
    KIN,
    LENGTH,
    acts_and_leaves_no_trace,
    batch,
    fault_for,
    model_of,
    optimizer_of,
    trains_under_the_fault,
)
from transformers import BertConfig, BertForMaskedLM

from diagnoser.faults import OPERATORS, draw, inject, operators_for, ways_of
from diagnoser.manifest import LINEAGES
from diagnoser.taxonomy import operators, root_causes

WAYS = {code: operator for code, operator in OPERATORS.items() if operator.beyond}
FITTING = {
    family: {operator.code for operator in operators_for(BUILDERS[family]("tokens"))}
    for family in BUILDERS
}


def _families(code: str) -> list[str]:
    return [family for family in BUILDERS if code in FITTING[family]]


def _mark(code: str, at: int, family: str) -> list[pytest.MarkDecorator]:
    """One family each by default, in turn; the other pairs on demand."""
    own = [member for member in _families(code) if member in FAMILIES]
    return [] if family == own[at % len(own)] else [pytest.mark.matrix]


CASES = [
    pytest.param(code, family, marks=_mark(code, at, family), id=f"{code}-{family}")
    for at, code in enumerate(WAYS)
    for family in _families(code)
]


@pytest.mark.parametrize(("code", "family"), CASES)
def test_way_acts_and_leaves_no_trace(code: str, family: str) -> None:
    acts_and_leaves_no_trace(code, family)


@pytest.mark.parametrize(("code", "family"), CASES)
@pytest.mark.parametrize("task", ["tokens", "classes"])
def test_training_goes_on_under_the_way(code: str, family: str, task: str) -> None:
    trains_under_the_fault(code, family, task)


@pytest.mark.parametrize(("code", "family"), CASES)
def test_nothing_before_or_beside_the_fault_is_touched(code: str, family: str) -> None:
    operator = OPERATORS[code]
    model = model_of(family)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    model.eval()
    with torch.no_grad():
        clean = model(**batch(family), output_hidden_states=True).hidden_states
    fault = next(
        fault
        for fault in (fault_for(code, model, seed) for seed in range(200))
        if not operator.layered or fault.layers == (1,)
    )
    with inject(model, optimizer_of(model), fault), torch.no_grad():
        states = model(**batch(family), output_hidden_states=True).hidden_states
        changed = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    if operator.layered:
        assert all(torch.equal(a, b) for a, b in zip(clean[:2], states[:2], strict=True))
        assert all(".1." in name for name in changed)
    else:
        assert len(changed) <= 1


def test_every_root_cause_has_a_way_beyond_its_operators() -> None:
    for key in root_causes():
        ways = ways_of(*key.split("/"))
        assert [way.beyond for way in ways] == sorted(way.beyond for way in ways)
        assert not ways[0].beyond and ways[-1].beyond, key
    assert len({way.what for way in OPERATORS.values()}) == len(OPERATORS)
    assert all(way.happens for way in WAYS.values())
    with pytest.raises(ValueError, match="masking/none"):
        ways_of("masking", "none")


def test_ways_keep_to_the_scope_of_their_root_cause() -> None:
    scopes: dict[str, set[str]] = {}
    for row in operators().values():
        scopes.setdefault(f"{row.category}/{row.root_cause}", set()).add(row.scope)
    for way in WAYS.values():
        assert way.scope in scopes[f"{way.category}/{way.root_cause}"], way.code


def test_ways_are_drawn_only_when_asked_for() -> None:
    model = model_of("gpt2")
    rng = random.Random(0)
    plain = {draw(model, rng, length=LENGTH).operator for _ in range(400)}
    assert not plain & set(WAYS)
    wide = {draw(model, rng, length=LENGTH, beyond=True).operator for _ in range(1500)}
    assert set(WAYS) & FITTING["gpt2"] <= wide
    assert draw(model, rng, operator="MPS").operator == "MPS"


def test_values_that_violate_nothing_are_never_drawn() -> None:
    mistral = BUILDERS["mistral"]("tokens")
    mistral.config.sliding_window = 4
    assert {fault_for("VWN", mistral, s).value for s in range(40)} == {2}
    lone = BertForMaskedLM(
        BertConfig(vocab_size=8, hidden_size=8, num_hidden_layers=1, num_attention_heads=1)
    )
    assert {fault_for("SDT", lone, s).value for s in range(40)} == {"twice"}
    llama = model_of("llama")
    with pytest.raises(ValueError, match="operator=KND"):  # no dropout that could be ignored
        fault_for("KND", llama)
    assert {fault_for("MSD", model_of("bert"), s).value for s in range(40)} == {"other_side"}
    assert {draw(llama, random.Random(s), operator="PSQ", length=6).value for s in range(40)} == {
        2, 4,
    }  # fmt: skip


@pytest.mark.parametrize("family", sorted(set(FAMILIES) | set(KIN)))
def test_a_family_has_ways_in_every_category(family: str) -> None:
    found = {OPERATORS[code].category for code in FITTING[family] if OPERATORS[code].beyond}
    expected = {way.category for way in WAYS.values()}
    assert found == expected - ({"kv_cache"} if LINEAGES.get(family, family) == "bert" else set())
