"""What broken contracts say by themselves: rules, in causal order.

One fault sets off several contracts. They are read in the order in which a transformer computes:
parameters first, then what is computed from them, outputs last; comparisons that a healthy model
may miss speak after all others. The first rule that is met names the cause.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
import numpy.typing as npt

from diagnoser.conditions import CONDITIONS, At
from diagnoser.taxonomy import ROOT_CAUSE_KEYS
from probe.nodes import kind_of

Moment = Literal["", "start", "jump", "moved", "lifted"]


@dataclass(frozen=True)
class Rule:
    """A contract that fires at ``nodes`` speaks for ``causes``, the likeliest first.

    ``low``, ``high``: the value must lie within, so that one metric can tell two causes apart. A
    metric that is no contract fires where it lies within: a value that no healthy run reaches.
    ``when``: a name of :data:`diagnoser.conditions.CONDITIONS`.
    """

    nodes: tuple[str, ...]
    metric: str
    causes: tuple[str, ...]
    low: float = float("-inf")
    high: float = float("inf")
    soft: bool = False
    """A comparison with peers or convention, which a healthy model may miss: it speaks for its
    causes, but does not by itself make a run faulty."""

    lasting: bool = False
    """A fact of how the run began. Training hides it within a few steps but does not undo it: one
    measurement is enough, and it stands for the rest of the run."""

    when: str = ""

    moment: Moment = ""
    """``start``: looked at in the first sample of a training from a random start. ``jump``: the
    value is how much the metric, the size of weights, changed between two samples (log2, without
    sign) beyond what its updates explain. ``moved``: the metric is how far weights moved between
    two samples, beyond what updates explain. ``lifted``: a gradient's norm is beyond what it was
    clipped to. Each stands once it is met."""


_NORMS = ("norm_attention", "norm_ffn", "norm_final")
_SUMS = ("residual_attention", "residual_ffn")

_INFINITY = float("inf")
_FFN_SCALE = tuple(
    # Healthy layers drift apart by half of this in a few hundred steps.
    Rule(("ffn",), metric, ("ffn/weight_scaling", "ffn/weight_initialization"), low, high, True)
    for metric in ("in_gap", "out_gap")
    for low, high in ((0.8, _INFINITY), (-_INFINITY, -0.8))
)

RULES: tuple[Rule, ...] = (
    # What the run was built with: parameters, settings, groups.
    Rule(("embedding",), "zero_rows", ("embedding/input_initialization",), lasting=True),
    Rule(("embedding",), "zero_dims", ("embedding/input_dimension",)),
    Rule(("qkv",), "zero_weights", ("qkv/parameter_initialization",), lasting=True),
    Rule(("qkv",), "tied_heads", ("qkv/head_interaction",)),
    Rule(_NORMS, "gamma_zero", ("layernorm/scale_parameter",)),
    Rule(_NORMS, "eps_ratio", ("layernorm/stability_parameter",)),
    Rule(("ffn",), "constant_weights", ("ffn/weight_initialization",), lasting=True),
    Rule(("ffn",), "equal_neurons", ("ffn/weight_initialization",)),
    Rule(("ffn",), "zero_neurons", ("ffn/neuron_dropout",)),
    Rule(("ffn",), "decay_gap", ("ffn/regularization",)),
    # From a random start no row is far smaller than the others.
    Rule(
        ("embedding",), "small_rows", ("embedding/input_initialization",), low=0.01, moment="start"
    ),
    # How large other weights are then is convention: healthy ones were seen within half of this.
    Rule(("output",), "weight_gap", ("output/output_type",), low=1.0, soft=True, moment="start"),
    Rule(("output",), "weight_gap", ("output/output_type",), high=-1.0, soft=True, moment="start"),
    *(
        Rule(
            ("qkv",),
            "weight_gap",
            ("qkv/parameter_initialization",),
            low,
            high,
            True,
            moment="start",
        )
        for low, high in ((0.7, _INFINITY), (-_INFINITY, -0.7))
    ),
    # Draws of every usual kind stay below, whatever the width from 8 on.
    *(
        Rule(("qkv",), metric, ("qkv/parameter_initialization",), low=0.5, moment="start")
        for metric in ("q_weight", "k_weight", "v_weight")
    ),
    Rule(("ffn",), "in_level", ("ffn/weight_initialization",), low=3.0, soft=True, moment="start"),
    Rule(("ffn",), "in_level", ("ffn/weight_scaling",), low=0.7, soft=True, moment="start"),
    Rule(("ffn",), "in_level", ("ffn/weight_scaling",), high=-0.7, soft=True, moment="start"),
    # Changed by something else than the optimizer.
    Rule(("output",), "head_weight", ("output/output_type",), low=0.5, moment="jump"),
    Rule(("ffn",), "in_weight", ("ffn/weight_scaling",), low=0.5, moment="jump"),
    Rule(("ffn",), "out_weight", ("ffn/weight_scaling",), low=0.5, moment="jump"),
    Rule(_NORMS, "gamma_norm", ("layernorm/scale_parameter",), low=0.3, moment="jump"),
    # Drawn anew at the same size.
    Rule(("output",), "moved_between", ("output/output_type",), low=0.5, moment="moved"),
    Rule(_NORMS, "moved_between", ("layernorm/bias_parameter",), low=0.2, moment="moved"),
    *(
        Rule(("qkv",), metric, ("qkv/parameter_initialization",), low=0.5, moment="jump")
        for metric in ("q_weight", "k_weight", "v_weight")
    ),
    # Bounds that healthy training stays far from: 0.4 and 0.0003 were seen.
    Rule(("ffn",), "grad_weight_cosine", ("ffn/regularization",), low=0.7),
    # A penalty on the weights in the loss. Of a norm's few weights the gradient may point anywhere.
    Rule(_NORMS, "grad_weight_cosine", ("layernorm/regularization",), low=0.99, soft=True),
    Rule(("training",), "grad_limited", ("residual/gradient_clipping",), low=0.003),
    Rule(("training",), "grad_norm", ("residual/gradient_clipping",), low=0.01, moment="lifted"),
    # Recipes clip to a norm of 1, few to less.
    Rule(("training",), "clip_level", ("residual/gradient_clipping",), high=0.3, soft=True),
    Rule(("output",), "zero_rows", ("output/output_dimension", "output/output_type")),
    Rule(("output",), "size_gap", ("output/output_dimension",)),
    Rule(("output",), "untied", ("output/output_type",)),
    # What comes in.
    Rule(("embedding",), "type_scale", ("embedding/input_type",)),
    # Some dimensions of every row, or all of some rows.
    Rule(("embedding",), "wrong_dims", ("embedding/input_dimension",), high=0.9),
    Rule(("embedding",), "wrong_rows", ("embedding/input_type",), high=0.95),
    *(
        Rule(("embedding",), metric, ("embedding/input_type", "embedding/input_dimension"))
        for metric in ("lookup_error", "wrong_rows", "wrong_dims")
    ),
    # Attention, in the order it is computed. Rotary positions are read from q and k as they are
    # after the rotation: what is wrong with these before it comes first.
    Rule(("qkv",), "head_count", ("qkv/dimension",)),
    Rule(("qkv",), "swapped", ("qkv/head_interaction",)),
    Rule(("qkv",), "tied_outputs", ("qkv/head_interaction",)),
    Rule(("score",), "precision_gap", ("score/precision_handling",)),
    Rule(("qkv",), "k_error", ("kernel/numerical_precision",), when="queries right"),
    Rule(("positional",), "missing", ("positional/indexing",)),
    Rule(("positional",), "repeated", ("positional/interpolation",), when="squeezed"),
    Rule(("positional",), "repeated", ("positional/indexing",), low=0.995),
    Rule(("positional",), "repeated", ("positional/interpolation",)),
    Rule(("positional",), "offset", ("positional/relative_position",)),
    Rule(("positional",), "index_error", ("positional/relative_position",)),
    Rule(("positional",), "rotation_error", ("positional/relative_position",), low=3e-3),
    Rule(("positional",), "rotation_error", ("kernel/numerical_precision",)),
    # Small errors speak for precision, not for another computation.
    Rule(("score",), "input_error", ("score/precision_handling",), when="coarse"),
    Rule(("qkv",), "q_error", ("kernel/numerical_precision",), high=3e-3),
    Rule(("qkv",), "k_error", ("kernel/numerical_precision",), high=3e-3),
    Rule(("qkv",), "v_error", ("kernel/numerical_precision",), high=3e-3),
    Rule(("qkv",), "q_error", ("qkv/parameter_initialization", "qkv/head_interaction")),
    Rule(("qkv",), "k_error", ("qkv/parameter_initialization", "qkv/head_interaction")),
    Rule(("qkv",), "v_error", ("qkv/parameter_initialization",)),
    Rule(("score",), "scale_ratio", ("qkv/dimension",), when="scale drifts"),
    Rule(("score",), "scale_ratio", ("score/normalization",), when="only the scale"),
    Rule(("score",), "dropped", ("score/precision_handling",), when="coarse"),
    Rule(("score",), "dropped", ("score/implementation",)),
    Rule(("attention",), "row_sum_error", ("score/normalization",)),
    Rule(("mask",), "causal_unasked", ("variant/dynamic_dispatch",)),
    Rule(("mask",), "hidden", ("masking/mask_application",), low=0.95),
    Rule(("mask",), "hidden", ("variant/dynamic_dispatch",), when="later hidden"),
    Rule(
        ("mask",),
        "hidden",
        ("variant/variant_configuration", "variant/dynamic_dispatch"),
        when="far hidden",
    ),
    Rule(
        ("mask",),
        "hidden",
        ("masking/mask_generation", "masking/dynamic_mask"),
        when="near hidden",
    ),
    # Where the order of the pairs is not told.
    Rule(
        ("mask",),
        "hidden",
        ("variant/variant_configuration", "variant/dynamic_dispatch"),
        low=0.2,
        when="nothing leaked",
    ),
    Rule(("mask",), "hidden", ("masking/mask_generation", "masking/mask_application")),
    # The scores are masked and mass gets there all the same: it is shared out along another axis.
    Rule(("mask",), "padding_mass", ("score/normalization",), when="nothing leaked"),
    Rule(("mask",), "future_mass", ("score/normalization",), when="nothing leaked"),
    Rule(("mask",), "padding_mass", ("masking/dynamic_mask",), when="part leaked"),
    Rule(("mask",), "padding_mass", ("masking/mask_application", "masking/mask_generation")),
    Rule(("mask",), "future_mass", ("masking/mask_application",), when="all leaked"),
    Rule(("mask",), "future_mass", ("masking/dynamic_mask", "masking/mask_application")),
    Rule(("mask",), "cross_mass", ("masking/dynamic_mask",)),
    Rule(("mask",), "leaked", ("masking/mask_application", "masking/dynamic_mask")),
    Rule(("score",), "input_error", ("score/implementation",)),
    Rule(("score",), "scale_ratio", ("score/implementation", "score/normalization")),
    Rule(("attention",), "dead_heads", ("variant/variant_configuration",)),
    Rule(("attention",), "dropout_gap", ("kernel/feature_constraints",)),
    Rule(("attention",), "kernel_calls", ("kernel/kernel_memory",)),
    Rule(("attention",), "precision_gap", ("kernel/hardware_incompatibility",), low=1.0),
    Rule(("attention",), "precision_gap", ("kernel/numerical_precision",)),
    Rule(("attention",), "strided_inputs", ("kernel/hardware_incompatibility",)),
    Rule(("attention",), "kernel_changed", ("kernel/silent_fallback",)),
    Rule(
        ("attention",),
        "backend_fallback",
        ("kernel/hardware_incompatibility",),
        when="output cut",
    ),
    Rule(
        ("attention",),
        "backend_fallback",
        ("kernel/silent_fallback", "kernel/hardware_incompatibility"),
    ),
    # The stream through a layer.
    Rule(("ffn",), "dead_neurons", ("ffn/neuron_dropout",), when="same dead"),
    Rule(("ffn",), "activation_error", ("ffn/activation_function",), when="more than dead"),
    Rule(("ffn",), "activation_error", ("ffn/activation_function", "ffn/neuron_dropout")),
    Rule(("ffn",), "dead_neurons", ("ffn/neuron_dropout",)),
    Rule(("ffn",), "linear_error", ("ffn/weight_scaling", "ffn/neuron_dropout")),
    Rule(_NORMS, "formula_error", ("layernorm/scale_parameter",), when="larger than gamma"),
    Rule(_NORMS, "formula_error", ("layernorm/stability_parameter", "layernorm/bias_parameter")),
    Rule(_SUMS, "detached", ("residual/residual_path",)),
    Rule(_SUMS, "dropout_gap", ("residual/dropout_rate",)),
    Rule(_SUMS, "branch_gain", ("residual/dropout_rate",), when="rows dropped"),
    Rule(("embedding", "output"), "dropout_gap", ("residual/dropout_rate",)),
    # The size of a 16-bit rounding, where the stream is kept in 32.
    Rule(_SUMS, "sum_error", ("residual/residual_path",), high=6e-3),
    Rule(_SUMS, "sum_error", ("residual/residual_path",), when="no sum"),
    Rule(_SUMS, "skip_gain", ("residual/skip_connection",), high=-0.8),
    Rule(_SUMS, "skip_gain", ("residual/residual_scaling",), when="only coefficients"),
    Rule(_SUMS, "skip_gain", ("residual/skip_connection",), when="both off"),
    Rule(_SUMS, "branch_gain", ("residual/residual_scaling",)),
    Rule(_SUMS, "skip_gain", ("residual/residual_scaling", "residual/residual_path")),
    Rule(_SUMS, "sum_error", ("residual/residual_path", "residual/residual_scaling")),
    # What comes out.
    Rule(("output",), "head_gain", ("output/output_scaling",), when="only scaled"),
    # Probabilities in place of logits: all of one size, and small.
    Rule(("output",), "head_gain", ("output/output_scaling",), when="probabilities"),
    Rule(("output",), "head_gain", ("output/output_scaling",), high=-1.5),
    Rule(("output",), "head_gain", ("output/output_type",), when="older copy"),
    Rule(("output",), "head_gain", ("output/output_dimension", "output/output_type")),
    Rule(("output",), "head_error", ("output/output_dimension", "output/output_type")),
    Rule(("output",), "loss_error", ("output/output_dimension",)),
    Rule(("attention",), "reference_error", ("kernel/numerical_precision", "score/implementation")),
    Rule(
        ("attention",),
        "reaches_output",
        ("qkv/head_interaction", "variant/variant_configuration"),
    ),
    # The same seen from outside, by running the model again: where nothing inside could be read.
    Rule(("output",), "packing_effect", ("masking/dynamic_mask",)),
    Rule(("output",), "batch_effect", ("masking/mask_generation",)),
    Rule(("output",), "future_effect", ("masking/mask_application", "masking/dynamic_mask")),
    Rule(("output",), "padding_effect", ("masking/mask_application", "masking/mask_generation")),
    Rule(("output",), "trim_effect", ("masking/mask_application", "positional/relative_position")),
    Rule(("output",), "position_missing", ("positional/indexing",)),
    Rule(
        ("output",),
        "context_missing",
        ("variant/variant_configuration", "qkv/parameter_initialization"),
    ),
    # Consequences, and what only shows over time.
    *(
        Rule((node,), "moved_between", (cause,), low=0.5, moment="moved")
        for node, cause in (
            ("qkv", "qkv/parameter_initialization"),
            ("ffn", "ffn/weight_initialization"),
        )
    ),
    Rule(("qkv",), "unmoved", ("qkv/dynamic_parameter_registration",)),
    # One token short, of prompts of 6 tokens or more.
    Rule(("kv_cache",), "length_gap", ("kv_cache/update_synchronization",), low=-0.27, high=0.0),
    Rule(
        ("kv_cache",), "length_gap", ("kv_cache/memory_layout", "kv_cache/update_synchronization")
    ),
    Rule(("kv_cache",), "rearranged", ("kv_cache/memory_layout",)),
    Rule(("kv_cache",), "key_error", ("kv_cache/cache_position",), when="keys alone"),
    Rule(("kv_cache",), "key_error", ("kv_cache/distributed_synchronization",), when="of others"),
    Rule(("kv_cache",), "value_error", ("kv_cache/cache_invalidation",), when="values alone"),
    # A position twice: the newest one's keys were withheld, or an earlier state was served.
    Rule(
        ("kv_cache",),
        "stale_share",
        ("kv_cache/update_synchronization",),
        soft=True,
        when="nothing last",
    ),
    Rule(
        ("kv_cache",),
        "stale_share",
        ("kv_cache/cache_invalidation", "kv_cache/cache_position"),
        soft=True,
    ),
    Rule(("kv_cache",), "last_error", ("kv_cache/cache_position",), when="hole"),
    Rule(
        ("kv_cache",), "last_error", ("kv_cache/update_synchronization", "kv_cache/cache_position")
    ),
    Rule(
        ("kv_cache",),
        "key_error",
        ("kv_cache/cache_position", "kv_cache/distributed_synchronization"),
    ),
    Rule(("kv_cache",), "value_error", ("kv_cache/cache_invalidation",)),
    Rule(("kv_cache",), "logits_error", ("kv_cache/cache_invalidation",)),
    Rule(("kv_cache",), "divergence", ("kv_cache/cache_invalidation",)),
    Rule(("output",), "unmoved", ("output/output_type",)),
    Rule(("ffn",), "unmoved", ("ffn/weight_initialization",)),
    Rule(_NORMS, "unmoved", ("layernorm/scale_parameter",)),
    Rule(("embedding",), "unmoved", ("embedding/input_initialization",)),
    Rule(("attention",), "unmoved", ("qkv/dynamic_parameter_registration",)),
    Rule(("positional",), "unmoved", ("positional/indexing",)),
    Rule(("training",), "uncovered", ("qkv/dynamic_parameter_registration",)),
    Rule(("training",), "duplicated", ("residual/gradient_clipping",), soft=True),
    # Parameters against their peers: looser bounds, so they speak last.
    Rule(("qkv",), "weight_gap", ("qkv/parameter_initialization",), soft=True),
    Rule(_NORMS, "gamma_gap", ("layernorm/scale_parameter",), soft=True),
    Rule(_NORMS, "beta_shift", ("layernorm/bias_parameter",), soft=True),
    *_FFN_SCALE,
    Rule(("embedding",), "small_rows", ("embedding/input_initialization",), soft=True),
    Rule(("output",), "small_rows", ("output/output_dimension",), soft=True),
    # Decay that plain healthy scripts have too, from a single parameter group.
    Rule(_NORMS, "decay_severity", ("layernorm/regularization",), soft=True),
)


def rules_on(node: str, metric: str) -> tuple[tuple[int, Rule], ...]:
    """The rules on a metric at a node that hold at any moment, with their places in the order."""
    return rules_at("", node, metric)


def rules_at(moment: Moment, node: str, metric: str) -> tuple[tuple[int, Rule], ...]:
    """The rules on a metric at a node that ask for a moment, with their places in the order."""
    return _rules_of(moment, kind_of(node), metric)


@cache  # asked for every column of a header, and layers are alike
def _rules_of(moment: Moment, kind: str, metric: str) -> tuple[tuple[int, Rule], ...]:
    return tuple(
        (rank, rule)
        for rank, rule in enumerate(RULES)
        if (metric, moment) == (rule.metric, rule.moment) and kind in rule.nodes
    )


def rule_for(node: str, metric: str, at: At) -> tuple[int, Rule] | None:
    """The first rule that a firing contract meets, and its place in the order.

    ``at``: the last values of the metrics of the same site, by name.
    """
    for rank, rule in rules_on(node, metric):
        if rule.low <= at[metric] <= rule.high and (not rule.when or CONDITIONS[rule.when](at)):
            return rank, rule
    return None


def cause_table() -> npt.NDArray[np.float32]:
    """(rules, root causes): 1 for a rule's first cause, a half for its second, and so on."""
    table = np.zeros((len(RULES), len(ROOT_CAUSE_KEYS)), dtype=np.float32)
    for row, rule in enumerate(RULES):
        for place, cause in enumerate(rule.causes):
            table[row, ROOT_CAUSE_KEYS.index(cause)] = 0.5**place
    return table


def rules_digest() -> str:
    """Short checksum of the rules and their order."""
    return hashlib.sha256("\n".join(map(repr, RULES)).encode()).hexdigest()[:16]
