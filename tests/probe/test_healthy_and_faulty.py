"""Contracts hold on healthy models, and the one made for a fault fires when it is injected."""

from __future__ import annotations

import random

import pytest
from tiny_models import FAMILIES, Seen, make, train

from diagnoser.faults import OPERATORS, draw, inject, operators_for
from probe.heads import split


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_no_contract_fires_on_a_healthy_run(family, dropout, tmp_path):
    train(make(family, dropout), family, 8, attach={"trace": tmp_path / "t"})
    assert Seen(tmp_path / "t").fired() == set()


@pytest.mark.parametrize("family", FAMILIES)
def test_float32_residuals_are_at_rounding(family, tmp_path):
    train(make(family, 0.0), family, 6, attach={"trace": tmp_path / "t"})
    seen = Seen(tmp_path / "t")
    for key in (
        "attention@1/reference_error", "norm_ffn@1/formula_error", "residual_ffn@1/sum_error",
        "ffn@1/activation_error", "qkv@1/v_error", "output/loss_error", "output/head_error",
    ):  # fmt: skip
        assert seen[key].max() < 1e-5, key


@pytest.mark.parametrize("family", FAMILIES)
def test_bfloat16_autocast_stays_within_its_rounding(family, tmp_path):
    """Residuals grow by the dtype's rounding (2^16 coarser), nothing else fires."""
    model = make(family, 0.0)
    train(model, family, 6, autocast=True, attach={"trace": tmp_path / "t"})
    seen = Seen(tmp_path / "t")
    nodes = {site.name: site.node for site in seen.header.anatomy.sites}
    for at, column in enumerate(seen.header.columns):
        metric = seen.header.metric(column.metric, nodes[split(column.site)[0]])
        values = abs(seen.array[:, at])
        values = values[values == values]
        if metric.contract and len(values):
            allowed = 0.03 if metric.form == "residual" else max(metric.tolerance, 0.02)
            assert sorted(values)[len(values) // 2] <= allowed, column.key


EXPECTED = {
    "MZM": "mask/leaked", "MIM": "mask/hidden", "MCB": "mask/future_mass",
    "QFG": "qkv/unmoved", "QSW": "qkv/swapped|qkv/q_error", "QZV": "qkv/zero_weights",
    "QTH": "qkv/tied_outputs",
    "QHD": "qkv/head_count", "SDS": "score/scale_ratio", "SPD": "score/dropped",
    "SUC": "score/precision_gap", "POE": "positional/missing", "PSI": "positional/index_error",
    "PTL": "positional/repeated", "KSB": "attention/kernel_changed",
    "KMD": "attention/dropout_gap", "KFT": "attention/strided_inputs|attention/backend_fallback",
    "KHD": "attention/backend_fallback",
    "KRP": "attention/precision_gap|qkv/v_error", "KMC": "attention/kernel_calls",
    "VSH": "attention/dead_heads", "VEC": "mask/causal_unasked", "CST": "kv_cache/key_error",
    "CDU": "kv_cache/stale_share", "COB": "kv_cache/last_error", "CLK": "kv_cache/value_error",
    "ETZ": "embedding/zero_rows", "ESW": "embedding/lookup_error",
    "EZD": "embedding/zero_dims|embedding/lookup_error", "FDN": "ffn/dead_neurons",
    "FCA": "ffn/activation_error", "FRG": "ffn/decay_gap", "NZG": "norm_ffn/gamma_gap",
    "NSB": "norm_ffn/beta_shift", "NCE": "norm_ffn/eps_ratio",
    "RRS": "residual_ffn/skip_gain|residual_attention/skip_gain",
    "RSR": "residual_ffn/branch_gain|residual_attention/branch_gain",
    "RIN": "residual_ffn/sum_error|residual_attention/sum_error",
    "RDR": "residual_ffn/dropout_gap|residual_attention/dropout_gap",
    "OSL": "output/head_gain", "OOD": "output/head_error|output/size_gap",
}  # fmt: skip
CASES = [
    (family, code)
    for family in FAMILIES
    for code in EXPECTED
    if any(operator.code == code for operator in operators_for(make(family)))
]


@pytest.mark.parametrize("family", FAMILIES)
def test_float64_in_a_float32_model_is_told(family, tmp_path):
    model = make(family)
    drawn = (draw(model, random.Random(seed), operator="KFT") for seed in range(50))
    fault = next(fault for fault in drawn if fault.value == "dtype")
    with inject(model, None, fault):
        train(model, family, 6, attach={"trace": tmp_path / "t"})
    assert "attention/precision_gap" in Seen(tmp_path / "t").fired()


@pytest.mark.parametrize(("family", "code"), CASES)
def test_the_contract_made_for_a_fault_fires(family, code, tmp_path):
    model = make(
        family, 0.0 if code in ("KFT", "KHD") else 0.1
    )  # with dropout every backend is the slow one
    operator = OPERATORS[code]
    rng = random.Random(5)
    # Peers tell a fault in one layer; a tenth of the rows may not be in the sample.
    fault = next(
        fault
        for fault in (draw(model, rng, operator=code) for _ in range(200))
        if len(fault.layers) <= 1 and fault.value != 0.1
    )
    injected = []

    def before(step, optimizer):
        if step == (0 if operator.moment == "start" else 4):
            context = inject(model, optimizer, fault)
            context.__enter__()
            injected.append(context)

    train(model, family, 8, before=before, attach={"trace": tmp_path / "t"})
    injected[0].__exit__(None, None, None)
    seen = Seen(tmp_path / "t")
    assert not [r for r in seen.records if getattr(r, "kind", "") == "probe_off"]
    # What a run began with shows in the first sample, before training refills the weights.
    assert seen.frames[0].step == 0
    began = seen.fired(until=0)
    fired = seen.fired(from_step=4) | began
    assert fired & set(EXPECTED[code].split("|")), f"{fault}: fired {sorted(fired)}"
