"""Answers to runs of which only some moments are kept: those of a feature table.

The engine follows a run frame by frame, takes the mean of the last scores and flags what stays
high. A table holds a handful of moments of a run (:func:`diagnoser.dataset.moments`), so that each
is judged by itself, without that smoothing. What can be told: the answer at the run's end; whether
one of the kept healthy moments is flagged (of some, not of all); and after how many samples at the
latest a fault was named (3, 5, 9 or 17, or at the end).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from diagnoser import schema
from diagnoser.contracts import Firing
from diagnoser.decision import as_named
from diagnoser.origin import locate
from diagnoser.replay import Prediction
from diagnoser.rules import RULES
from diagnoser.taxonomy import CATEGORY_NAMES, ROOT_CAUSE_KEYS
from diagnoser.votes import CAUSE_CATEGORY

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from diagnoser.dataset import Sample
    from diagnoser.manifest import Run
    from diagnoser.replay import Scorer
    from diagnoser.rules import Rule
    from probe.schema import Metric

OVER_TOLERANCE = 1.0
"""``level`` of a contract at its tolerance (:meth:`diagnoser.columns.Columns.excess`)."""


def broken_at(sample: Sample) -> tuple[Firing, ...]:
    """The sites at which the contracts of the rules met are broken, in causal order.

    None for a rule whose breach is no longer in the window. Values and steps are not kept.
    """
    found = []
    for number in np.flatnonzero(sample.fired).tolist():
        rule = RULES[number]
        for kind in rule.nodes:
            sites = sample.graph.sites.get(kind, ())
            if not sites:
                continue
            broken = _beyond(sample.nodes[kind], kind, rule)
            for at in np.flatnonzero(broken).tolist():
                layer = sample.graph.layers[kind][at]
                found.append(
                    Firing(
                        site=sites[at],
                        node=kind,
                        layer=None if layer < 0 else layer,
                        metric=rule.metric,
                        value=float("nan"),
                        since_step=-1,
                        rank=number,
                        causes=rule.causes,
                    )
                )
    return tuple(found)


def _beyond(values: npt.NDArray[np.floating], kind: str, rule: Rule) -> npt.NDArray[np.bool_]:
    """(sites,) where a rule's contract is over its tolerance, or its metric within its bounds."""
    names = schema.feature_names(kind)
    if rule.moment in ("start", "moved", "lifted"):  # where it was is no longer to be seen
        return np.ones(len(values), dtype=bool)
    if rule.moment == "jump":
        jumps = np.abs(values[:, names.index(f"{rule.metric}:jump")].astype(np.float32))
        return np.asarray(jumps >= max(0.5 * float(jumps.max()), 1e-6))
    metric = next(m for m in schema.metrics_of(kind) if m.name == rule.metric)
    if metric.contract:
        return np.asarray(values[:, names.index(f"{rule.metric}:level")] >= OVER_TOLERANCE)
    low, high = (_transformed(bound, metric) for bound in (rule.low, rule.high))
    own = values[:, names.index(f"{rule.metric}:value")].astype(np.float32)
    return np.asarray((own >= low) & (own <= high))


def _transformed(bound: float, metric: Metric) -> float:
    """As :meth:`diagnoser.columns.Columns.transform` makes it of a value."""
    if metric.form in ("statistic", "signed"):
        return float(np.arcsinh(bound))
    if metric.form == "positive" and np.isfinite(bound):
        return float(np.log10(bound))
    return bound


def answer(trained: Scorer, run: Run, samples: Sequence[Sample]) -> Prediction:
    """The answer to a run from its moments (in order, at least one)."""
    scores, _ = trained.run(
        [sample.graph for sample in samples],
        [sample.nodes for sample in samples],
        np.stack([sample.fired for sample in samples]),
    )
    probabilities = [float(1.0 / (1.0 + np.exp(-np.clip(s.logit, -30, 30)))) for s in scores]
    flagged = [p >= trained.calibration.thresholds.high for p in probabilities]
    named = [int(np.argmax(score.category)) for score in scores]
    healthy = [not sample.faulty for sample in samples]
    begin = max((s.frame + 1 for s in samples if not s.faulty), default=0) if run.faulty else 0
    delays = [
        sample.frame - begin + 1
        for sample, high, category in zip(samples, flagged, named, strict=True)
        if sample.faulty and high and CATEGORY_NAMES[category] == run.category
    ]
    last, score, category = samples[-1], scores[-1], named[-1]
    firings = broken_at(last)
    of_category = np.array(CAUSE_CATEGORY)
    cause = as_named(score.cause, score.named, of_category)
    within = np.where(of_category == category, cause, -1.0)
    origin = locate(last.graph, score.origin, firings, CATEGORY_NAMES[category])
    met = np.flatnonzero(last.fired).tolist()
    first = RULES[met[0]].causes[0].split("/") if met else (None, None)
    layers = [
        firing.layer for firing in firings if firing.rank == met[0] and firing.layer is not None
    ]
    return Prediction(
        id=run.id,
        group=run.group,
        family=run.family,
        operator=run.operator,
        truth=run.key,
        true_layers=tuple(run.layers),
        start_step=run.start_step if run.faulty else None,
        frames=last.frame + 1,
        faulty=flagged[-1],
        probability=probabilities[-1],
        ever_flagged=any(high and well for high, well in zip(flagged, healthy, strict=True)),
        first_flagged_step=None,
        delay=min(delays, default=None),
        category=CATEGORY_NAMES[category] if flagged[-1] else None,
        root_cause=ROOT_CAUSE_KEYS[int(np.argmax(within))].split("/")[1] if flagged[-1] else None,
        layer=origin.first if flagged[-1] else None,
        layers=origin.layers if flagged[-1] else (),
        contract_faulty=bool(met),
        contract_category=first[0],
        contract_root_cause=first[1],
        contract_layer=min(layers, default=None),
        contract_ever=any(
            bool(sample.fired.any()) for sample, well in zip(samples, healthy, strict=True) if well
        ),
    )


def answers(trained: Scorer, samples: Sequence[Sample]) -> list[Prediction]:
    """The answers to all runs that the samples are of."""
    of_run: dict[str, list[Sample]] = {}
    for sample in samples:
        of_run.setdefault(sample.run.id, []).append(sample)
    return [
        answer(trained, own[0].run, sorted(own, key=lambda sample: sample.frame))
        for own in of_run.values()
    ]
