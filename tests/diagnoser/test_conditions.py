"""What else a site shows tells causes apart that one metric leaves open."""

import numpy as np
import pytest

from diagnoser.conditions import CONDITIONS, before
from diagnoser.rules import RULES, rule_for
from probe.catalogue import METRICS


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
