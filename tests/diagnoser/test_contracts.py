import msgspec
import numpy as np
import pytest
import synthetic_runs

from diagnoser import contracts
from diagnoser.columns import Columns
from diagnoser.conditions import CONDITIONS
from diagnoser.contracts import ContractWatch
from diagnoser.phrases import CONTRACT_PHRASES
from diagnoser.rules import RULES
from diagnoser.schema import CONTRACTS_ONLY
from diagnoser.taxonomy import root_causes
from probe.catalogue import METRICS

CONTRACTS = {(node, m.name) for m in METRICS if m.contract for node in m.nodes}


def watched(header, frames):
    watch = ContractWatch(Columns(header))
    for frame in frames:
        watch.update(frame)
    return watch


def with_values(header, key, values):
    place = [column.key for column in header.columns].index(key)
    result = []
    for frame, value in zip(synthetic_runs.frames(header, len(values)), values, strict=True):
        array = frame.array.copy()
        array[place] = value
        result.append(msgspec.structs.replace(frame, values=array.tobytes()))
    return result


def test_every_contract_of_the_catalogue_has_a_rule_and_a_phrase():
    ruled = {(node, rule.metric) for rule in RULES for node in rule.nodes}
    # The taxonomy has no root cause for these: they are told, and speak for none.
    told = {(node, metric) for node, metric in CONTRACTS if node in CONTRACTS_ONLY}
    assert CONTRACTS - ruled == told and told
    for node, metric in CONTRACTS | ruled:
        assert (node, metric) in CONTRACT_PHRASES or ("", metric) in CONTRACT_PHRASES, metric


def test_rules_name_metrics_and_root_causes_that_exist():
    known = {(node, m.name) for m in METRICS for node in m.nodes}
    for rule in RULES:
        named = {(node, rule.metric) for node in rule.nodes}
        bounded = np.isfinite([rule.low, rule.high]).any()
        assert named <= CONTRACTS or (named <= known and bounded)
        assert set(rule.causes) <= set(root_causes())
        assert not rule.when or rule.when in CONDITIONS


def test_a_metric_that_is_no_contract_fires_within_its_rules_bounds():
    header = synthetic_runs.header()
    key = "ffn@1/grad_weight_cosine"
    (firing,) = watched(header, with_values(header, key, [0.02, 0.9, 0.95, 0.97])).firings()
    assert firing.causes == ("ffn/regularization",)
    assert watched(header, with_values(header, key, [0.3, -0.9, 0.3, 0.3])).firings() == ()


@pytest.mark.parametrize("family", synthetic_runs.FAMILIES)
def test_nothing_fires_on_a_healthy_run(family):
    header = synthetic_runs.header(family)
    watch = watched(header, synthetic_runs.frames(header, 20))
    assert watch.firings() == ()
    assert not contracts.verdict(watch.firings()).faulty
    assert not contracts.fired_rules(()).any()


def test_one_odd_value_does_not_fire_two_of_three_do():
    header = synthetic_runs.header()
    once = watched(header, with_values(header, "mask@1/leaked", [0, 0, 0.3, 0]))
    twice = watched(header, with_values(header, "mask@1/leaked", [0, 0.3, 0, 0.3]))
    assert once.firings() == ()
    (firing,) = twice.firings()
    assert (firing.site, firing.layer, firing.since_step) == ("mask@1", 1, 10)


def test_how_the_run_began_is_told_by_one_measurement_and_stands():
    header = synthetic_runs.header()
    values = [0.0, 0.3, 0.0, 0.0, 0.0, 0.0]
    watch = watched(header, with_values(header, "embedding/zero_rows", values))
    (firing,) = watch.firings()
    assert (firing.since_step, round(firing.value, 3)) == (10, 0.3)
    watch.rebind(Columns(header))
    assert watch.firings() == (firing,)


def test_a_contract_that_heals_stops_firing_and_forgets_when_it_began():
    header = synthetic_runs.header()
    values = [0.3] * 4 + [0.0] * 4 + [0.3] * 2
    watch = watched(header, with_values(header, "mask@1/leaked", values[:8]))
    assert watch.firings() == ()
    watch = watched(header, with_values(header, "mask@1/leaked", values))
    assert watch.firings()[0].since_step == 80


def test_frames_without_the_value_do_not_count():
    header = synthetic_runs.header("gpt2")
    values = [0.5, np.nan, np.nan, np.nan, 0.5, np.nan]
    (firing,) = watched(header, with_values(header, "kv_cache@0/key_error", values)).firings()
    assert firing.value == 0.5


def test_the_earliest_cause_in_the_graph_decides():
    header = synthetic_runs.header()
    frames = synthetic_runs.frames(header, 8, fault="score/normalization", layer=2)
    frames = [
        msgspec.structs.replace(frame, values=_also(header, frame, "attention@2/reference_error"))
        for frame in frames
    ]
    firings = watched(header, frames).firings()
    assert [firing.metric for firing in firings] == ["scale_ratio", "reference_error"]
    found = contracts.verdict(firings)
    assert (found.category, found.root_cause, found.layers) == ("score", "normalization", (2,))
    met = [RULES[row].metric for row in np.flatnonzero(contracts.fired_rules(firings))]
    assert met == ["scale_ratio", "reference_error"]


def _also(header, frame, key):
    array = frame.array.copy()
    array[[column.key for column in header.columns].index(key)] = 0.5
    return array.tobytes()


@pytest.mark.parametrize(
    ("values", "cause"),
    [([-0.5] * 4, "score/normalization"), ([-0.5, -0.4, -0.6, -0.5], "qkv/dimension")],
)
def test_a_factor_that_changes_from_sample_to_sample_is_no_scale(values, cause):
    header = synthetic_runs.header()
    (firing,) = watched(header, with_values(header, "score@1/scale_ratio", values)).firings()
    assert firing.causes[0] == cause


def test_a_metric_that_is_gone_is_not_taken_for_what_it_was():
    header = synthetic_runs.header()
    keys = [column.key for column in header.columns]
    frames = with_values(header, "attention@1/backend_fallback", [0.0, 1.0, 1.0, 1.0, 1.0])
    gone = []
    for number, frame in enumerate(frames):
        array = frame.array.copy()
        array[keys.index("attention@1/reaches_output")] = 0.0 if number < 2 else np.nan
        gone.append(msgspec.structs.replace(frame, values=array.tobytes()))
    (still,), (cut,) = watched(header, frames).firings(), watched(header, gone).firings()
    assert still.causes[0] == "kernel/silent_fallback"
    assert cut.causes[0] == "kernel/hardware_incompatibility"


def test_rounding_of_a_16_bit_run_does_not_fire():
    values = [3e-3] * 6
    full = synthetic_runs.header()
    half = synthetic_runs.header(dtype="bfloat16")
    key = "attention@0/reference_error"
    assert watched(full, with_values(full, key, values)).firings()
    assert not watched(half, with_values(half, key, values)).firings()


def test_rebinding_keeps_what_was_counted():
    header = synthetic_runs.header()
    frames = with_values(header, "mask@1/leaked", [0.3] * 3)
    watch = watched(header, frames)
    turned = msgspec.structs.replace(header, columns=header.columns[::-1])
    watch.rebind(Columns(turned))
    (firing,) = watch.firings()
    assert (firing.site, firing.since_step) == ("mask@1", 0)


def test_the_rounding_of_autocast_does_not_fire_but_a_fault_under_it_does():
    header = synthetic_runs.header()
    keys = [column.key for column in header.columns]
    products = [n for n, key in enumerate(keys) if key.endswith(("/linear_error", "/head_error"))]
    frames = []
    for frame in synthetic_runs.frames(header, 6):
        array = frame.array.copy()
        array[products] = 2.3e-3
        array[keys.index("qkv@0/q_error")] = 2e-3
        array[keys.index("attention@1/reference_error")] = 0.4
        frames.append(msgspec.structs.replace(frame, values=array.tobytes()))
    assert [firing.site for firing in watched(header, frames).firings()] == ["attention@1"]


def test_a_fault_in_one_product_is_not_taken_for_rounding():
    header = synthetic_runs.header()
    firings = watched(header, with_values(header, "ffn@1/linear_error", [5e-3] * 4)).firings()
    assert [firing.metric for firing in firings] == ["linear_error"]
