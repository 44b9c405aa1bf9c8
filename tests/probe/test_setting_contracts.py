"""Contracts on how a model is set up: healthy on every family, fired by the fault made for each."""

from __future__ import annotations

import numpy as np
import pytest
from family_grid import CONDITIONS, contract_of, faulty, healthy, measured, over, reason
from family_models import FAMILIES
from fault_target import Inapplicable
from setting_faults import MADE_FOR

CONFIGURED = {
    "embedding/dropout_gap": ("bert", "distilbert", "roberta", "gpt2", "bert, LoRA", "gpt2, LoRA"),
    "output/dropout_gap": ("bert", "distilbert", "roberta", "bert, LoRA"),
}
"""Families whose config states the rate, and which hold a module of it."""


@pytest.mark.parametrize(
    ("contract", "family"),
    [(c, family) for c, families in CONFIGURED.items() for family in families],
)
def test_a_contract_on_settings_fires_for_its_fault_and_no_other(contract, family, tmp_path):
    (fault,) = MADE_FOR[contract]
    assert set(map(contract_of, over(faulty(family, fault, tmp_path / "t")))) == {contract}


@pytest.mark.matrix
@pytest.mark.parametrize("family", FAMILIES)
def test_it_is_measured_only_where_the_config_states_the_rate(family, tmp_path):
    seen = healthy(family, CONDITIONS["dropout"], tmp_path / "t")
    for contract, families in CONFIGURED.items():
        assert (contract in measured(seen)) == (family in families)
        assert family in families or "no config states" in reason(seen, contract)
    assert not set(map(contract_of, over(seen))) & set(MADE_FOR)


@pytest.mark.matrix
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("contract", MADE_FOR)
def test_where_it_is_measured_it_fires(family, contract, tmp_path):
    (fault,) = MADE_FOR[contract]
    try:
        seen = faulty(family, fault, tmp_path / "t")
    except Inapplicable:
        assert family not in CONFIGURED[contract]
        return
    assert (contract in map(contract_of, over(seen))) == (family in CONFIGURED[contract])


def test_the_gap_is_the_difference_of_the_rates(tmp_path):
    seen = faulty("gpt2", MADE_FOR["embedding/dropout_gap"][0], tmp_path / "t")
    assert seen["embedding/dropout_gap"] == pytest.approx(0.3)
    assert np.isnan(seen["output/dropout_gap"]).all()
