import msgspec
import pytest
import synthetic_runs

from diagnoser import evidence
from diagnoser.columns import Columns
from diagnoser.contracts import ContractWatch, Firing
from diagnoser.features import RollingFeatures
from probe.catalogue import METRICS


def observed(header, frames):
    rolling = RollingFeatures(header)
    watch = ContractWatch(rolling.columns)
    for frame in frames:
        rolling.push(frame)
        watch.update(frame)
    return rolling, watch.firings()


def test_a_broken_contract_is_told_in_plain_words_with_its_step():
    header = synthetic_runs.header()
    frames = synthetic_runs.frames(header, 12, 1, "masking/mask_application", 2, start=70)
    rolling, firings = observed(header, frames)
    found = evidence.gather(rolling.columns, rolling.state(), firings, "masking", 110)
    text = {item.metric: item.text for item in found}["padding_mass"]
    assert text.startswith("At mask@2 real tokens put ")
    assert text.endswith(" % of their attention on padding (expected 0), since step 70")


def test_contracts_of_the_category_found_come_first():
    header = synthetic_runs.header()
    frames = synthetic_runs.frames(header, 8, 1, "residual/skip_connection", 1)
    place = [c.key for c in header.columns].index("mask@0/leaked")
    changed = []
    for frame in frames:
        array = frame.array.copy()
        array[place] = 0.5
        changed.append(msgspec.structs.replace(frame, values=array.tobytes()))
    rolling, firings = observed(header, changed)
    sites = [e.site for e in evidence.gather(rolling.columns, rolling.state(), firings, None, 70)]
    assert sites[0] == "mask@0"
    found = evidence.gather(rolling.columns, rolling.state(), firings, "residual", 70)
    assert [e.site for e in found][:2] == ["residual_ffn@1", "residual_ffn@1"]
    assert "the skip path has a gain of" in found[0].text
    assert "(expected 1)" in found[0].text and found[0].expected == "0"


def test_a_jump_in_the_suspected_component_says_from_what_to_what_and_when():
    header = synthetic_runs.header()
    frames = synthetic_runs.frames(header, 24, 1, "layernorm/bias_parameter", 1, start=120)
    rolling, firings = observed(header, frames)
    found = evidence.gather(rolling.columns, rolling.state(), firings, "layernorm", 230)
    jump = next(e for e in found if e.metric == "beta_mean")
    assert jump.site == "norm_ffn@1"
    assert 100 <= jump.since_step <= 150
    assert "before" in jump.text


def test_a_healthy_run_gives_no_evidence():
    header = synthetic_runs.header()
    rolling, firings = observed(header, synthetic_runs.frames(header, 20))
    assert evidence.gather(rolling.columns, rolling.state(), firings, None, 190) == ()


@pytest.mark.parametrize("value", [1e-6, -0.7, 0.23, 13.0, float("inf")])
def test_every_contract_can_be_said_whatever_its_value(value):
    header = synthetic_runs.header("gpt2")
    columns = Columns(header)
    for metric in METRICS:
        if metric.contract:
            for node in metric.nodes:
                firing = Firing("here@1", node, 1, metric.name, value, 5, 0, ())
                text = evidence.describe([firing], columns).text
                assert "{" not in text and "At here@1 " in text


def test_a_contract_broken_in_several_layers_is_told_once_with_the_worst_value():
    header = synthetic_runs.header()
    columns = Columns(header)
    firings = tuple(
        Firing(f"mask@{layer}", "mask", layer, "leaked", value, 30 + layer, 0, ())
        for layer, value in ((0, 0.1), (1, 0.4), (2, 0.2))
    )
    (said,) = evidence.contracts_first(firings, columns, None)
    assert (said.site, said.value, said.since_step) == ("mask@1", 0.4, 30)
    assert said.text.startswith("At mask of layers 0–2 ") and "40 %" in said.text


def test_what_a_run_began_with_is_told_so():
    columns = Columns(synthetic_runs.header())
    firing = Firing("embedding", "embedding", None, "zero_rows", 0.5, 0, 0, (), lasting=True)
    assert evidence.describe([firing], columns).text.endswith("at step 0, as the run began")


def test_numbers_are_short():
    assert evidence.number(0.23456) == "0.235"
    assert evidence.number(1.5e-7) == "1.5e-07"
    assert evidence.number(float("nan")) == "NaN"
    assert evidence.number(25104.0) == "25104"
    assert evidence.percent(0.231) == "23 %"
    assert evidence.percent(0.0012) == "0.12 %"
    assert evidence.factor_of(1.0) == "2"
    assert evidence.factor_of(-1.0) == "0.5"
    assert evidence.factor_of(-30.0) == "0"
    assert evidence.factor_of(99.0) == evidence.factor_of(30.0)
