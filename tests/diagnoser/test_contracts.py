import msgspec
import numpy as np
import pytest
import synthetic_runs

from diagnoser import contracts
from diagnoser.columns import Columns
from diagnoser.conditions import CONDITIONS, before
from diagnoser.contracts import ContractWatch
from diagnoser.phrases import CONTRACT_PHRASES
from diagnoser.rules import RULES, rule_for
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


def test_one_metric_tells_two_causes_apart_by_its_value():
    gone = rule_for("residual_ffn", "skip_gain", {"skip_gain": -1.0})
    scaled = rule_for("residual_ffn", "skip_gain", {"skip_gain": 1.0})
    assert gone[1].causes[0] == "residual/skip_connection"
    assert scaled[1].causes[0] == "residual/residual_scaling"


WINDOW = {"leaked": 0.0, "hidden_near": 0.0, "hidden_later": 0.5}
"""Of a mask that hides far pairs on both sides."""
IN_TURN = {
    "branch_gain": 0.11,
    "misfit": 1e-7,
    "skip_gain": 0.0,
    before("branch_gain"): 0.11,
    before("misfit"): 0.1,
    before("skip_gain"): 1e-3,
}
"""Of a scaled branch, alike in two samples; in one of them not all of it was there."""


@pytest.mark.parametrize(
    ("node", "metric", "at", "cause"),
    [
        ("output", "head_gain", {"head_gain": 1.0, "head_error": 0.5}, "output/output_scaling"),
        ("output", "head_gain", {"head_gain": 1.0, "head_error": 0.9}, "output/output_dimension"),
        ("output", "head_gain", {"head_gain": -5.0, "head_error": 1.0}, "output/output_scaling"),
        (
            "kv_cache",
            "key_error",
            {"key_error": 0.4, "value_error": 0.01},
            "kv_cache/cache_position",
        ),
        (
            "kv_cache",
            "key_error",
            {"key_error": 1.3, "value_error": 1.4},
            "kv_cache/distributed_synchronization",
        ),
        ("kv_cache", "length_gap", {"length_gap": -0.06}, "kv_cache/update_synchronization"),
        ("kv_cache", "length_gap", {"length_gap": -1.6}, "kv_cache/memory_layout"),
        ("mask", "hidden", {"hidden": 0.5, "leaked": 0.0}, "variant/variant_configuration"),
        ("mask", "hidden", {"hidden": 0.5, "leaked": 1.0}, "masking/mask_generation"),
        ("score", "dropped", {"dropped": 0.02, "input_error": 0.01}, "score/precision_handling"),
        ("score", "dropped", {"dropped": 0.02, "input_error": 0.5}, "score/implementation"),
        ("residual_ffn", "sum_error", {"sum_error": 0.003}, "residual/residual_path"),
        ("score", "dropped", {"dropped": 0.1, "input_error": 0.7}, "score/implementation"),
        ("score", "input_error", {"input_error": 0.03}, "score/precision_handling"),
        (
            "score",
            "input_error",
            {"input_error": 0.03, "scale_ratio": -5.3},
            "score/implementation",
        ),
        ("score", "scale_ratio", {"scale_ratio": 2.0}, "score/normalization"),
        (
            "score",
            "scale_ratio",
            {"scale_ratio": 2.0, before("scale_ratio"): 2.0004, "input_error": 1e-6},
            "score/normalization",
        ),
        (
            "score",
            "scale_ratio",
            {"scale_ratio": -0.26, before("scale_ratio"): -0.24},
            "qkv/dimension",
        ),
        (
            "qkv",
            "k_error",
            {"q_error": 0.0, "k_error": 0.1, "v_error": 0.11},
            "kernel/numerical_precision",
        ),
        (
            "qkv",
            "k_error",
            {"q_error": 0.4, "k_error": 0.1, "v_error": 0.11},
            "qkv/parameter_initialization",
        ),
        (
            "attention",
            "precision_gap",
            {"precision_gap": 29.0},
            "kernel/hardware_incompatibility",
        ),
        ("attention", "precision_gap", {"precision_gap": -13.0}, "kernel/numerical_precision"),
        (
            "attention",
            "backend_fallback",
            {"backend_fallback": 1.0, "reaches_output": 0.0},
            "kernel/silent_fallback",
        ),
        (
            "attention",
            "backend_fallback",
            {"backend_fallback": 1.0},
            "kernel/hardware_incompatibility",
        ),
        (
            "output",
            "head_error",
            {"head_error": 0.2, "wrong_classes": 0.2},
            "output/output_dimension",
        ),
        (
            "output",
            "head_gain",
            {"head_gain": 0.3, "head_error": 0.4, "wrong_classes": 1.0},
            "output/output_type",
        ),
        (
            "output",
            "head_gain",
            {"head_gain": 0.3, "head_error": 0.4, "wrong_classes": 0.997},
            "output/output_dimension",
        ),
        (
            "output",
            "head_gain",
            {"head_gain": 0.3, "head_error": 1.2, "logit_std": 0.2, "wrong_classes": 1.0},
            "output/output_scaling",
        ),
        (
            "output",
            "head_gain",
            {"head_gain": 0.3, "head_error": 1.2, "logit_std": 0.2, "wrong_classes": 0.75},
            "output/output_dimension",
        ),
        (
            "kv_cache",
            "stale_share",
            {"stale_share": 0.1, "key_error": 0.4, "value_error": 0.01, "last_error": 0.6},
            "kv_cache/cache_invalidation",
        ),
        (
            "residual_ffn",
            "skip_gain",
            {"skip_gain": -0.1, "branch_gain": 0.05, "misfit": 1e-6},
            "residual/residual_scaling",
        ),
        (
            "residual_ffn",
            "skip_gain",
            {"skip_gain": -0.1, "branch_gain": 0.05, "misfit": 0.1},
            "residual/skip_connection",
        ),
        (
            "residual_ffn",
            "branch_gain",
            IN_TURN | {before("branch_gain"): -0.2},
            "residual/dropout_rate",
        ),
        (
            "residual_ffn",
            "branch_gain",
            IN_TURN,
            "residual/residual_scaling",
        ),
        (
            "residual_ffn",
            "branch_gain",
            IN_TURN | {before("branch_gain"): -0.2, before("misfit"): 1e-7},
            "residual/residual_scaling",
        ),
        (
            "residual_ffn",
            "branch_gain",
            IN_TURN | {before("branch_gain"): -0.2, "skip_gain": 0.3},
            "residual/residual_scaling",
        ),
        (
            "mask",
            "padding_mass",
            {"padding_mass": 0.2, "future_mass": 0.1, "leaked": 0.3},
            "masking/dynamic_mask",
        ),
        (
            "mask",
            "padding_mass",
            {"padding_mass": 0.2, "future_mass": 0.1, "leaked": 1.0},
            "masking/mask_application",
        ),
        ("mask", "padding_mass", {"padding_mass": 0.2, "leaked": 0.0}, "score/normalization"),
        ("mask", "future_mass", {"future_mass": 0.2, "leaked": 1.0}, "masking/mask_application"),
        ("mask", "future_mass", {"future_mass": 0.6, "leaked": 0.3}, "masking/dynamic_mask"),
        (
            "norm_ffn",
            "formula_error",
            {"formula_error": 0.5, "output_std": 2.0, "gamma_norm": 1.0},
            "layernorm/scale_parameter",
        ),
        (
            "norm_ffn",
            "formula_error",
            {"formula_error": 0.5, "output_std": 0.5, "gamma_norm": 1.0},
            "layernorm/stability_parameter",
        ),
        (
            "residual_ffn",
            "sum_error",
            {"sum_error": 0.6, "skip_gain": 0.01, "branch_gain": -0.04, "branch_ratio": 0.5},
            "residual/residual_path",
        ),
        (
            "residual_ffn",
            "skip_gain",
            {"skip_gain": -0.58, "branch_gain": 0.06},
            "residual/skip_connection",
        ),
        ("output", "head_gain", {"head_gain": -0.4, "head_error": 0.246}, "output/output_type"),
        (
            "kv_cache",
            "value_error",
            {"key_error": 0.0, "value_error": 0.1},
            "kv_cache/cache_invalidation",
        ),
        (
            "kv_cache",
            "stale_share",
            {"stale_share": 0.08, "last_error": 1.0},
            "kv_cache/update_synchronization",
        ),
        (
            "kv_cache",
            "stale_share",
            {"stale_share": 0.08, "last_error": 1.4},
            "kv_cache/cache_invalidation",
        ),
        (
            "kv_cache",
            "last_error",
            {"stale_share": 0.0, "last_error": 1.0},
            "kv_cache/cache_position",
        ),
        (
            "ffn",
            "activation_error",
            {"activation_error": 0.57, "dead_neurons": 0.04},
            "ffn/activation_function",
        ),
        (
            "ffn",
            "activation_error",
            {"activation_error": 0.57, "dead_neurons": 0.2, before("dead_neurons"): 0.21},
            "ffn/activation_function",
        ),
        (
            "ffn",
            "dead_neurons",
            {"activation_error": 0.57, "dead_neurons": 0.1, before("dead_neurons"): 0.1},
            "ffn/neuron_dropout",
        ),
        (
            "output",
            "head_gain",
            {"head_gain": 0.15, "head_error": 1.16, "logit_std": 0.03},
            "output/output_scaling",
        ),
        ("embedding", "wrong_dims", {"wrong_dims": 0.25}, "embedding/input_dimension"),
        ("embedding", "wrong_dims", {"wrong_dims": 1.0}, "embedding/input_type"),
        ("embedding", "wrong_rows", {"wrong_rows": 0.3}, "embedding/input_type"),
        ("positional", "repeated", {"repeated": 1.0}, "positional/indexing"),
        ("positional", "repeated", {"repeated": 0.5}, "positional/interpolation"),
        (
            "positional",
            "repeated",
            {"repeated": 1.0, "spacing": 0.125},
            "positional/interpolation",
        ),
        ("positional", "repeated", {"repeated": 1.0, "spacing": 0.0}, "positional/indexing"),
        ("mask", "hidden", {"hidden": 0.1, **WINDOW}, "variant/variant_configuration"),
        (
            "mask",
            "hidden",
            {"hidden": 0.3, **WINDOW, "hidden_near": 0.4, "hidden_later": 1.0},
            "variant/dynamic_dispatch",
        ),
        (
            "mask",
            "hidden",
            {"hidden": 0.3, **WINDOW, "hidden_near": 0.4},
            "masking/mask_generation",
        ),
        ("mask", "hidden", {"hidden": 0.3, "leaked": 0.0}, "variant/variant_configuration"),
    ],
)
def test_what_else_the_site_shows_tells_causes_apart(node, metric, at, cause):
    met = rule_for(node, metric, at)
    assert met is not None and met[1].causes[0] == cause


@pytest.mark.parametrize(("dead_before", "may_be_dropped"), [(0.1, True), (0.12, False)])
def test_neurons_that_stay_dead_may_be_why_an_activation_is_off(dead_before, may_be_dropped):
    at = {"activation_error": 0.57, "dead_neurons": 0.1, before("dead_neurons"): dead_before}
    met = rule_for("ffn", "activation_error", at)
    assert met is not None and ("ffn/neuron_dropout" in met[1].causes) is may_be_dropped


@pytest.mark.parametrize("rule", [rule for rule in RULES if rule.when])
@pytest.mark.parametrize("value", [0.0, np.nan, np.inf, -120.0])
def test_a_condition_takes_any_value(rule, value):
    """A contract that has healed still fires for a sample, with a value of 0."""
    CONDITIONS[rule.when]({})
    for node in rule.nodes:
        names = [metric.name for metric in METRICS if node in metric.nodes]
        CONDITIONS[rule.when](dict.fromkeys(names, value))


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
