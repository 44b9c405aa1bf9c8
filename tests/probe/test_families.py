"""Every family the probe must understand: found, measured, healthy within tolerance, untouched."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from family_faults import MADE_FOR
from family_grid import (
    CONDITIONS,
    STEPS,
    contract_of,
    faulty,
    healthy,
    measured,
    over,
    possible,
    reason,
)
from family_models import FAMILIES, LAYERS, make, train
from fault_target import Inapplicable
from tiny_models import FAMILIES as CORE
from tiny_models import Seen
from torch import nn

from probe.heads import split
from probe.schema import Event
from probe.why_absent import UNSEEN

NEW = tuple(family for family in FAMILIES if family not in CORE)


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A healthy run of a family with dropout, made once."""
    made = {}

    def of(family: str) -> Seen:
        if family not in made:
            trace = tmp_path_factory.mktemp("healthy") / "t"
            made[family] = healthy(family, CONDITIONS["dropout"], trace)
        return made[family]

    return of


ORDER = {
    "bert, LoRA": "post", "distilbert": "post", "roberta": "post", "torch encoder": "post",
}  # fmt: skip


@pytest.mark.parametrize("family", NEW)
def test_the_parts_are_found(family, run):
    anatomy = run(family).header.anatomy
    assert anatomy.layers == (2 * LAYERS if family == "t5" else LAYERS)
    assert anatomy.heads == 4 and anatomy.vocabulary == 100
    assert anatomy.head_dim == (16 if family == "qwen3" else 8)
    assert anatomy.norm_order == ORDER.get(family, "pre")
    names = {site.name for site in anatomy.sites}
    for stack in ("encoder.", "decoder.") if family == "t5" else ("",):
        for node in ("qkv", "score", "mask", "attention", "residual_attention", "norm_attention",
                     "ffn", "residual_ffn", "norm_ffn"):  # fmt: skip
            assert f"{stack}{node}@{LAYERS - 1}" in names
        assert (f"{stack}norm_final" in names) == (anatomy.norm_order == "pre")
    assert len(run(family).frames) == STEPS


@pytest.mark.works_with("Model families")
@pytest.mark.parametrize("family", NEW)
@pytest.mark.parametrize("name", ["float32", "dropout"])
def test_no_contract_fires_on_a_healthy_run(family, name, run, tmp_path):
    seen = run(family) if name == "dropout" else healthy(family, CONDITIONS[name], tmp_path / "t")
    assert over(seen) == {}


@pytest.mark.works_with("Model families")
@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_not_measured_has_its_reason_and_what_is_has_none(family, run):
    _told_why(run(family))


def _told_why(seen: Seen, exactly: bool = True) -> None:
    """``exactly``: and what is measured has no reason, as the first sample cannot know where a
    value depends on how training goes on."""
    absent, nothing = seen.header.absent, np.isnan(seen.array).all(axis=0)
    rare = {metric.name for metric in seen.header.metrics if metric.rare}
    for column, missing in zip(seen.header.columns, nothing, strict=True):
        site, _ = split(column.site)
        chart = f"{site.partition('@')[0]}/{column.metric}"
        told = chart in absent or f"{site}/{column.metric}" in absent
        # The turn of a rare one may not have come.
        assert told or not missing or column.metric in rare, column.key
        assert missing or not told or not exactly, column.key
    assert UNSEEN not in absent.values()


@pytest.mark.works_with("Model families")
@pytest.mark.parametrize("family", NEW)
def test_results_are_the_same_bit_for_bit(family, tmp_path):
    plain, watched = make(family, 0.1), make(family, 0.1)
    without = train(plain, family, 4)
    rng = torch.get_rng_state()
    assert train(watched, family, 4, trace=tmp_path / "t") == without
    assert torch.equal(torch.get_rng_state(), rng)
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), watched.parameters()))  # noqa: B905
    assert torch._C._len_torch_function_stack() == 0
    notes = [r.text for r in Seen(tmp_path / "t").records if isinstance(r, Event)]
    assert not [text for text in notes if "turned itself off" in text]


SHORT = (
    "mask/leaked", "mask/hidden", "attention/reaches_output", "residual_ffn/sum_error",
    "norm_ffn/formula_error", "ffn/activation_error",
)  # fmt: skip


@pytest.mark.parametrize("family", NEW)
@pytest.mark.parametrize("contract", SHORT)
def test_a_contract_fires_for_the_fault_made_for_it(family, contract, tmp_path):
    assert contract in _fired(family, contract, tmp_path)


def _fired(family: str, contract: str, tmp_path) -> set[str]:
    (fault,) = MADE_FOR[contract]
    seen = faulty(family, fault, tmp_path / "t")
    return {contract_of(key) for key in over(seen, at_start=True)}


def test_torchs_own_functions_are_back_in_place_after_a_sample(tmp_path):
    places = (nn.functional, torch)
    before = [dict(vars(place)) for place in places]
    train(make("multihead attention"), "multihead attention", 2, trace=tmp_path / "t")
    assert [dict(vars(place)) for place in places] == before


def test_torchs_functions_are_back_where_the_attention_raises(tmp_path):
    from probe.inner_calls import shown_to

    kernel = nn.functional.scaled_dot_product_attention
    with pytest.raises(KeyError), shown_to(lambda *call: None):
        assert nn.functional.scaled_dot_product_attention is not kernel
        raise KeyError
    assert nn.functional.scaled_dot_product_attention is kernel


# -- the long grid --------------------------------------------------------------------------------


GRID = [
    (family, name)
    for family in FAMILIES
    for name, condition in CONDITIONS.items()
    if possible(family, condition)
]


@pytest.mark.matrix
@pytest.mark.parametrize(("family", "name"), GRID)
def test_contracts_hold_under_every_condition(family, name, tmp_path):
    seen = healthy(family, CONDITIONS[name], tmp_path / "t")
    assert over(seen) == {}
    _told_why(seen, exactly=False)


@pytest.mark.matrix
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("contract", MADE_FOR)
def test_every_contract_that_is_measured_fires_for_its_fault(family, contract, tmp_path):
    names = ("float32", "packed") if contract == "mask/cross_mass" else ("float32",)
    runs = [
        healthy(family, CONDITIONS[name], tmp_path / name)
        for name in names
        if possible(family, CONDITIONS[name])
    ]
    if not any(contract in measured(seen) for seen in runs):
        pytest.skip(reason(runs[0], contract))
    try:
        fired = _fired(family, contract, tmp_path)
    except Inapplicable:
        pytest.skip("no fault of this kind can be made here")
    assert contract in fired, sorted(fired)
