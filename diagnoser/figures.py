"""Run-level figures from predictions: F1, macro-F1, accuracy of layers, Wilson intervals."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from diagnoser.taxonomy import CATEGORY_NAMES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from diagnoser.replay import Prediction


@dataclass(frozen=True)
class Rates:
    """Precision, recall and F1; NaN where they have no meaning."""

    precision: float
    recall: float
    f1: float


@dataclass(frozen=True)
class Figures:
    """All figures of one evaluation. Category and root cause count faulty runs only; a faulty
    run that is called healthy counts as a wrong answer. ``layer`` counts faults in one layer."""

    runs: int
    faulty: int
    clean: int
    detection: Rates
    category_f1: float
    cause_f1: float
    category_right: int
    cause_right: int
    layer_right: int
    layer_runs: int
    clean_flagged: int
    """Clean runs that were flagged at any frame."""
    interval: tuple[float, float]
    """Wilson 95 % interval of their share."""
    early: int
    """Faulty runs that were flagged before the fault began."""
    delays: tuple[int, ...]
    """Of faults that begin within a run: frames until the right category was named, those never
    named rightly left out. Ordered."""
    mid_run: int
    """Faults that begin within a run."""
    calibration_error: float
    """Mean gap between the probability told at the end and the share that is faulty, over ten
    classes of probability (Naeini et al. 2015)."""


def wilson(count: int, total: int, z: float = 1.959964) -> tuple[float, float]:
    """Wilson score interval of a share (Wilson 1927); (0, 1) for no observation."""
    if total == 0:
        return 0.0, 1.0
    share = count / total
    middle = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = (
        z
        / (1 + z * z / total)
        * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    )
    return max(0.0, middle - half), min(1.0, middle + half)


def rates(right: int, wrongly: int, missed: int) -> Rates:
    """From counts of true positives, false positives and false negatives."""
    precision = right / (right + wrongly) if right + wrongly else float("nan")
    recall = right / (right + missed) if right + missed else float("nan")
    both = 2 * right + wrongly + missed
    return Rates(precision, recall, 2 * right / both if both else float("nan"))


def by_class(pairs: Sequence[tuple[str, str | None]]) -> dict[str, Rates]:
    """Rates of every class that occurs in the truth, from (truth, answer) pairs."""
    right = Counter(truth for truth, answer in pairs if truth == answer)
    truths = Counter(truth for truth, _ in pairs)
    answers = Counter(answer for _, answer in pairs)
    return {
        name: rates(right[name], answers[name] - right[name], truths[name] - right[name])
        for name in sorted(truths)
    }


def macro_f1(pairs: Sequence[tuple[str, str | None]]) -> float:
    """Mean F1 of the classes that occur in the truth; NaN without any."""
    found = by_class(pairs)
    return sum(item.f1 for item in found.values()) / len(found) if found else float("nan")


def _category(truth: str | None) -> str:
    return (truth or "").split("/")[0]


def category_pairs(predictions: Sequence[Prediction]) -> list[tuple[str, str | None]]:
    """(true category, answer) of the faulty runs; None where called healthy."""
    return [(_category(p.truth), p.category if p.faulty else None) for p in predictions if p.truth]


def cause_pairs(predictions: Sequence[Prediction]) -> list[tuple[str, str | None]]:
    """(true ``category/root_cause``, answer) of the faulty runs; None where called healthy."""
    return [
        (p.truth, f"{p.category}/{p.root_cause}" if p.faulty else None)
        for p in predictions
        if p.truth
    ]


def figures(predictions: Sequence[Prediction]) -> Figures:
    """The engine's figures over some runs."""
    faulty = [p for p in predictions if p.truth]
    clean = [p for p in predictions if not p.truth]
    caught = sum(p.faulty for p in faulty)
    categories, causes = category_pairs(predictions), cause_pairs(predictions)
    single = [p for p in faulty if len(p.true_layers) == 1]
    flagged = sum(p.ever_flagged for p in clean)
    return Figures(
        runs=len(predictions),
        faulty=len(faulty),
        clean=len(clean),
        detection=rates(caught, sum(p.faulty for p in clean), len(faulty) - caught),
        category_f1=macro_f1(categories),
        cause_f1=macro_f1(causes),
        category_right=sum(truth == answer for truth, answer in categories),
        cause_right=sum(truth == answer for truth, answer in causes),
        layer_right=sum(p.faulty and p.layer == p.true_layers[0] for p in single),
        layer_runs=len(single),
        clean_flagged=flagged,
        interval=wilson(flagged, len(clean)),
        early=sum(p.ever_flagged for p in faulty),
        delays=tuple(sorted(p.delay for p in faulty if p.start_step and p.delay is not None)),
        mid_run=sum(bool(p.start_step) for p in faulty),
        calibration_error=calibration_error(predictions),
    )


def calibration_error(predictions: Sequence[Prediction], classes: int = 10) -> float:
    """See :attr:`Figures.calibration_error`; NaN without runs."""
    if not predictions:
        return float("nan")
    gaps = 0.0
    for number in range(classes):
        low, high = number / classes, (number + 1) / classes
        last = number == classes - 1
        own = [p for p in predictions if low <= p.probability and (p.probability < high or last)]
        gaps += abs(sum(p.probability for p in own) - sum(bool(p.truth) for p in own))
    return gaps / len(predictions)


def quantile(values: Sequence[int], share: float) -> float:
    """The smallest of the ordered values that ``share`` of them do not exceed; NaN for none."""
    if not values:
        return float("nan")
    return values[max(0, math.ceil(share * len(values)) - 1)]


def contract_figures(predictions: Sequence[Prediction]) -> Figures:
    """The same for the contracts alone: the first rule's first cause."""
    return figures(
        [
            replace(
                p,
                faulty=p.contract_faulty,
                ever_flagged=p.contract_ever,
                category=p.contract_category,
                root_cause=p.contract_root_cause,
                layer=p.contract_layer,
            )
            for p in predictions
        ]
    )


def category_order(names: Sequence[str]) -> list[str]:
    """Categories in the taxonomy's order."""
    return [name for name in CATEGORY_NAMES if name in names]
