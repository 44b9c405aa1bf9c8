"""Why a metric is not measured on this model: a sentence for every column that stays NaN.

Asked once, in the publishing thread, when the values of the first sampled forward are known; the
sentences are those of :mod:`probe.why_absent`. The keys are those that the monitor looks up:
``node/metric`` where no layer has it, else ``site/metric``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import torch

from probe.anatomy import LayerParts, ModelParts, Stack
from probe.attention_call import AttentionCall
from probe.captured import Capture
from probe.measure import effects
from probe.nodes import CROSS
from probe.schema import Column, Site
from probe.why_absent import AT_THE_STEP, LIVE, MEMORY, why

Key = tuple[str, str]


@dataclass(frozen=True)
class Seen:
    """What the first sampled forward looked like; no tensors. ``calls``: attention by site."""

    calls: dict[str, CallFacts] = field(default_factory=dict)
    heads: dict[tuple[str, int], int] = field(default_factory=dict)
    """Query heads by stack and layer."""
    masked: frozenset[str] = frozenset()
    """Stacks that were given an attention mask; :data:`MEMORY` among them where the states that
    cross-attention reads were."""
    packed: bool = False
    labels: bool = False
    loss: bool = False
    half: bool = False
    """The stream is kept in 16 bits."""
    unshaped: frozenset[str] = frozenset()
    """Stacks whose states do not come as (rows, length, width)."""
    understood: bool = False
    """Token ids were found among the arguments."""
    effects: dict[str, str] = field(default_factory=dict)
    """Why a metric of the counterfactual reruns may be missing, by its name."""


@dataclass(frozen=True)
class CallFacts:
    """Of one attention call."""

    by_hand: bool
    dropout: bool
    grouped: bool
    added_to: bool


def facts(capture: Capture, parts: ModelParts) -> Seen:
    """Take from a capture what reasons depend on."""
    called = [
        (layer, kept.call)
        for pair in zip(parts.layers, capture.layers, strict=True)
        for layer, kept in zip(pair[0].attentions, (pair[1], pair[1].cross), strict=False)
        if kept is not None and kept.call is not None
    ]
    stacks = {stack.name: capture.of_stack(stack.name)[1] for stack in parts.stacks}
    if capture.memory is not None:
        stacks[MEMORY] = capture.memory[1]
    flows = [kept.block.out for kept in capture.layers if kept.block is not None]
    return Seen(
        calls={layer.site("attention"): _call(call) for layer, call in called},
        heads={(la.stack, la.index): call.heads for la, call in called if not la.crossing},
        masked=frozenset(name for name, batch in stacks.items() if batch.mask is not None),
        packed=capture.batch.positions is not None,
        labels=capture.of_output[1].labels is not None,
        loss=capture.loss is not None,
        half=any(out is not None and out.dtype != torch.float32 for out in flows),
        unshaped=frozenset(name for name, batch in stacks.items() if not batch.length),
        understood=capture.picked.length > 0,
    )


def _call(call: AttentionCall) -> CallFacts:
    # By hand, dropout is known to have run where its rate cannot be (NaN).
    grouped = call.q.shape[1] != call.k.shape[1]
    return CallFacts(call.by_hand, call.dropout != 0.0, grouped, call.added_to)


@dataclass(frozen=True)
class Question:
    """One column without a value. ``layer``, ``stack``: where it stands."""

    metric: str
    parts: ModelParts
    seen: Seen
    site: Site
    layer: LayerParts | None
    stack: Stack | None
    optimized: bool
    decodes: bool

    @property
    def call(self) -> CallFacts | None:
        if self.layer is None:
            return None
        return self.seen.calls.get(self.layer.site("attention"))


def reasons(
    parts: ModelParts,
    sites: Iterable[Site],
    columns: Iterable[Column],
    measured: set[Key],
    seen: Seen,
    *,
    compiled: bool,
    optimized: bool,
    decodes: bool,
) -> dict[str, str]:
    """Reasons by key, of whole components: what a layer lacks, its heads lack too.

    ``measured``: what the first sample has; ``decodes``: caches are compared.
    """
    known = {site.name: site for site in sites}
    layers = {layer.site(""): layer for layer in parts.layers}
    stacks = {stack.name: stack for stack in parts.stacks}
    charts: dict[str, dict[str, str]] = {}
    for column in columns:
        site = known[column.site]
        if (column.site, column.metric) in measured:
            text = ""
        elif compiled and column.metric not in AT_THE_STEP and site.node not in LIVE:
            text = "the model is compiled; activations are not read from it yet"
        else:
            layer = layers.get(site.name.replace(site.node, "", 1))
            if layer is not None and site.node in CROSS:
                layer = layer.cross
            stack = stacks.get(site.stack)
            text = why(Question(column.metric, parts, seen, site, layer, stack, optimized, decodes))
        chart = site.name.partition("@")[0]
        charts.setdefault(f"{chart}/{column.metric}", {})[column.key] = text
    found: dict[str, str] = {}
    for chart, texts in charts.items():
        alike = set(texts.values())
        chosen = {chart: alike.pop()} if len(alike) == 1 else texts
        found.update({key: text for key, text in chosen.items() if text})
    return found


def without_training(columns: Iterable[Column]) -> dict[str, str]:
    """Reasons for what only a training can show, by ``chart/metric``."""
    keys = (
        f"{column.site.partition('@')[0]}/{column.metric}"
        for column in columns
        if column.metric in (*AT_THE_STEP, *_OF_TRAINING, *_RERUN)
    )
    return dict.fromkeys(keys, UNTRAINED)


UNTRAINED = "the model runs without being trained"
_OF_TRAINING = (
    "learning_rate", "grad_max", "grad_min", "grad_mean", "grad_spread", "grad_decay",
    "grad_limited", "volatility", "clip_level", "uncovered", "duplicated",
)  # fmt: skip
_RERUN = tuple(metric.name for metric in effects.METRICS)
