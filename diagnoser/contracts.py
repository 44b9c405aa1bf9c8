"""Which contracts fire, where and since when, and what they say by themselves.

A contract fires when its magnitude was over the tolerance in at least two of its last three
measurements; one that tells how the run began, from its first measurement over it. One fault sets
off several contracts, so that they are read in causal order: parameters first, then what is
computed from them, outputs last (:data:`RULES`).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from diagnoser.taxonomy import ROOT_CAUSE_KEYS
from probe.nodes import kind_of

if TYPE_CHECKING:
    import numpy.typing as npt

    from diagnoser.columns import Columns
    from probe.schema import Frame

RECENT = 3
NEEDED = 2


@dataclass(frozen=True)
class Rule:
    """A contract that fires at ``nodes`` speaks for ``causes``, the likeliest first.

    ``low``, ``high``: the value must lie within, so that one metric can tell two causes apart.
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
    Rule(_NORMS, "decay_severity", ("layernorm/regularization",), low=0.3, soft=True),
    Rule(("ffn",), "constant_weights", ("ffn/weight_initialization",), lasting=True),
    Rule(("ffn",), "equal_neurons", ("ffn/weight_initialization",)),
    Rule(("ffn",), "zero_neurons", ("ffn/neuron_dropout",)),
    Rule(("ffn",), "decay_gap", ("ffn/regularization",)),
    Rule(("output",), "zero_rows", ("output/output_dimension", "output/output_type")),
    Rule(("output",), "size_gap", ("output/output_dimension",)),
    Rule(("output",), "untied", ("output/output_type",)),
    # What comes in.
    Rule(("embedding",), "type_scale", ("embedding/input_type",)),
    Rule(("embedding",), "lookup_error", ("embedding/input_type", "embedding/input_dimension")),
    Rule(("positional",), "missing", ("positional/indexing",)),
    Rule(("positional",), "repeated", ("positional/interpolation",)),
    Rule(("positional",), "offset", ("positional/relative_position",)),
    Rule(("positional",), "index_error", ("positional/relative_position",)),
    # Attention, in the order it is computed.
    Rule(("qkv",), "head_count", ("qkv/dimension",)),
    Rule(("qkv",), "swapped", ("qkv/head_interaction",)),
    Rule(("qkv",), "tied_outputs", ("qkv/head_interaction",)),
    Rule(("positional",), "rotation_error", ("positional/relative_position",), low=3e-3),
    Rule(("positional",), "rotation_error", ("kernel/numerical_precision",)),
    Rule(("score",), "precision_gap", ("score/precision_handling",)),
    # Errors the size of a 16-bit rounding speak for precision, not for another computation.
    Rule(("score",), "input_error", ("score/precision_handling",), high=3e-3),
    Rule(("qkv",), "q_error", ("kernel/numerical_precision",), high=3e-3),
    Rule(("qkv",), "k_error", ("kernel/numerical_precision",), high=3e-3),
    Rule(("qkv",), "v_error", ("kernel/numerical_precision",), high=3e-3),
    Rule(("qkv",), "q_error", ("qkv/parameter_initialization", "qkv/head_interaction")),
    Rule(("qkv",), "k_error", ("qkv/parameter_initialization", "qkv/head_interaction")),
    Rule(("qkv",), "v_error", ("qkv/parameter_initialization",)),
    Rule(("score",), "scale_ratio", ("score/normalization",)),
    Rule(("score",), "dropped", ("score/implementation",)),
    Rule(("mask",), "causal_unasked", ("variant/dynamic_dispatch",)),
    Rule(("mask",), "hidden", ("masking/mask_application",), low=0.95),
    Rule(("mask",), "hidden", ("masking/mask_generation", "masking/mask_application")),
    Rule(("mask",), "padding_mass", ("masking/mask_application", "masking/mask_generation")),
    Rule(("mask",), "future_mass", ("masking/mask_application",), low=0.4),
    Rule(("mask",), "future_mass", ("masking/dynamic_mask", "masking/mask_application")),
    Rule(("mask",), "cross_mass", ("masking/dynamic_mask",)),
    Rule(("mask",), "leaked", ("masking/mask_application", "masking/dynamic_mask")),
    Rule(("score",), "input_error", ("score/implementation",)),
    Rule(("attention",), "dead_heads", ("variant/variant_configuration",)),
    Rule(("attention",), "dropout_gap", ("kernel/feature_constraints",)),
    Rule(("attention",), "kernel_calls", ("kernel/kernel_memory",)),
    Rule(("attention",), "precision_gap", ("kernel/numerical_precision",)),
    Rule(("attention",), "strided_inputs", ("kernel/hardware_incompatibility",)),
    Rule(("attention",), "kernel_changed", ("kernel/silent_fallback",)),
    Rule(
        ("attention",),
        "backend_fallback",
        ("kernel/hardware_incompatibility", "kernel/silent_fallback"),
    ),
    # The stream through a layer.
    Rule(("ffn",), "activation_error", ("ffn/activation_function", "ffn/neuron_dropout")),
    Rule(("ffn",), "dead_neurons", ("ffn/neuron_dropout",)),
    Rule(("ffn",), "linear_error", ("ffn/weight_scaling", "ffn/neuron_dropout")),
    Rule(_NORMS, "formula_error", ("layernorm/scale_parameter", "layernorm/bias_parameter")),
    Rule(_SUMS, "dropout_gap", ("residual/dropout_rate",)),
    Rule(("embedding", "output"), "dropout_gap", ("residual/dropout_rate",)),
    Rule(_SUMS, "skip_gain", ("residual/skip_connection",), high=-0.9),
    Rule(_SUMS, "branch_gain", ("residual/residual_scaling",)),
    Rule(_SUMS, "skip_gain", ("residual/residual_scaling", "residual/residual_path")),
    Rule(_SUMS, "sum_error", ("residual/residual_path", "residual/residual_scaling")),
    # What comes out.
    Rule(("output",), "head_gain", ("output/output_scaling",), low=0.1),
    Rule(("output",), "head_gain", ("output/output_scaling",), high=-0.1),
    Rule(("output",), "head_gain", ("output/output_dimension", "output/output_type")),
    Rule(("output",), "head_error", ("output/output_dimension", "output/output_type")),
    Rule(("output",), "loss_error", ("output/output_dimension",)),
    Rule(("attention",), "reference_error", ("kernel/numerical_precision", "score/implementation")),
    Rule(("attention",), "reaches_output", ("variant/variant_configuration",)),
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
    Rule(("qkv",), "unmoved", ("qkv/dynamic_parameter_registration",)),
    Rule(
        ("kv_cache",), "length_gap", ("kv_cache/memory_layout", "kv_cache/update_synchronization")
    ),
    Rule(
        ("kv_cache",),
        "stale_share",
        ("kv_cache/cache_invalidation", "kv_cache/cache_position"),
        soft=True,
    ),
    Rule(("kv_cache",), "last_error", ("kv_cache/update_synchronization",)),
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


_LASTING = frozenset((node, rule.metric) for rule in RULES if rule.lasting for node in rule.nodes)


@dataclass(frozen=True)
class Firing:
    """A contract that fires at a site. ``rank`` is its place in the causal order."""

    site: str
    node: str
    layer: int | None
    metric: str
    value: float
    since_step: int
    rank: int
    causes: tuple[str, ...]
    lasting: bool = False


def rule_for(node: str, metric: str, value: float) -> tuple[int, Rule] | None:
    """The first rule that a firing contract meets, and its place in the order."""
    kind = kind_of(node)
    for rank, rule in enumerate(RULES):
        if metric == rule.metric and kind in rule.nodes and rule.low <= value <= rule.high:
            return rank, rule
    return None


class ContractWatch:
    """Remembers of every contract column its last three measurements. Feed it every frame.

    A lasting contract keeps the value and the step at which it was first seen broken.
    """

    def __init__(self, columns: Columns) -> None:
        self._start(columns)

    def _start(self, columns: Columns) -> None:
        self.columns = columns
        self._sites = tuple(column.site for column in columns.header.columns)
        count = len(columns)
        self._over = np.zeros((count, RECENT), dtype=bool)
        self._since = np.full(count, -1, dtype=np.int64)
        self._value = np.full(count, np.nan, dtype=np.float32)
        self._lasting = np.array(
            [
                (kind, metric.name) in _LASTING
                for kind, metric in zip(columns.kinds, columns.metrics, strict=True)
            ],
            dtype=bool,
        )
        self._lasts = np.zeros(count, dtype=bool)

    def rebind(self, columns: Columns) -> None:
        """Go on under a later header: columns it shares keep their state."""
        place = {key: number for number, key in enumerate(self.columns.keys)}
        source = np.array([place.get(key, -1) for key in columns.keys], dtype=np.int64)
        old = self._over, self._since, self._value, self._lasts
        self._start(columns)
        known = source >= 0
        self._over[known] = old[0][source[known]]
        self._since[known] = old[1][source[known]]
        self._value[known] = old[2][source[known]]
        self._lasts[known] = old[3][source[known]]

    def update(self, frame: Frame) -> None:
        raw = self.columns.values(frame)
        measured = ~np.isnan(raw)
        with np.errstate(invalid="ignore"):
            over = np.abs(raw) > self.columns.tolerance_at(raw)
        over &= measured
        rows = np.flatnonzero(measured & self.columns.contract & ~self._lasts)
        self._over[rows, :-1] = self._over[rows, 1:]
        self._over[rows, -1] = over[rows]
        self._value[rows] = raw[rows]
        started = rows[over[rows] & (self._since[rows] < 0)]
        self._since[started] = frame.step
        ended = rows[~self._over[rows].any(axis=1)]
        self._since[ended] = -1
        self._lasts |= over & self._lasting

    def mask(self) -> npt.NDArray[np.bool_]:
        """Which columns fire now, shape (C,)."""
        return (self._over.sum(axis=1) >= NEEDED) | self._lasts

    def firings(self) -> tuple[Firing, ...]:
        """Contracts that fire now, the earliest in causal order first, then by layer."""
        found = []
        for number in np.flatnonzero(self.mask()):
            node, layer = self.columns.nodes[number], self.columns.layers[number]
            metric, value = self.columns.metrics[number].name, float(self._value[number])
            met = rule_for(node, metric, value)
            found.append(
                Firing(
                    site=self._sites[number],
                    node=node,
                    layer=layer,
                    metric=metric,
                    value=value,
                    since_step=int(self._since[number]),
                    rank=met[0] if met else len(RULES),
                    causes=met[1].causes if met else (),
                    lasting=bool(self._lasts[number]),
                )
            )
        return tuple(sorted(found, key=lambda f: (f.rank, -1 if f.layer is None else f.layer)))


def fired_rules(firings: tuple[Firing, ...]) -> npt.NDArray[np.float32]:
    """Which rules are met anywhere in the model, shape ``(len(RULES),)``, 0 or 1."""
    result = np.zeros(len(RULES), dtype=np.float32)
    for firing in firings:
        if firing.rank < len(RULES):
            result[firing.rank] = 1.0
    return result


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


@dataclass(frozen=True)
class ContractVerdict:
    """What the contracts alone would answer: the baseline of the evaluation."""

    faulty: bool
    category: str | None = None
    root_cause: str | None = None
    layers: tuple[int, ...] = ()


def verdict(firings: tuple[Firing, ...]) -> ContractVerdict:
    """The earliest rule's first cause, and the layers at which that contract fires."""
    ruled = [firing for firing in firings if firing.causes]
    if not ruled:
        return ContractVerdict(faulty=bool(firings))
    first = ruled[0]
    category, cause = first.causes[0].split("/")
    layers = {
        firing.layer for firing in ruled if firing.rank == first.rank and firing.layer is not None
    }
    return ContractVerdict(True, category, cause, tuple(sorted(layers)))
