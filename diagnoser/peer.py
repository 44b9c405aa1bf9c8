"""What DEFault++ reports of itself, and the same figures of ours beside it.

Its figures are those of its manuscript (2026): seven models of 66 to 125 million parameters, nine
tasks, model-task pairs held out, encoders and decoders apart; of single categories only the weakest
are published. The runs are others than ours, so that the columns are two measurements, not a race.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from diagnoser.figures import by_class, category_order, cause_pairs, figures

if TYPE_CHECKING:
    from collections.abc import Sequence

    from diagnoser.figures import Figures
    from diagnoser.replay import Prediction

ENCODERS = frozenset({"bert", "roberta", "electra", "albert"})
NEITHER = frozenset({"bart", "t5", "vit", "torch_encoder"})
"""Families of kinds that the peer has no figures of."""

LEVELS = {
    "detection F1": (0.826, 0.909),
    "category macro-F1": (0.850, 0.868),
    "root cause macro-F1": (0.851, 0.867),
}
"""Of encoders and of decoders."""
CAUSES: dict[str, tuple[float | None, float | None]] = {
    "qkv": (0.765, 0.646),
    "kernel": (0.771, 0.765),
    "variant": (0.741, None),
    "ffn": (None, 0.718),
    "kv_cache": (None, 0.758),
}
"""Macro-F1 of the root causes of a category; None where it is not published."""


def beside(predictions: Sequence[Prediction]) -> list[str]:
    """A table of both, encoders and decoders apart."""
    kinds = [
        [p for p in predictions if p.family in ENCODERS],
        [p for p in predictions if p.family not in ENCODERS | NEITHER],
    ]
    found = [figures(own) for own in kinds]
    runs = [f"{own.faulty} / {own.clean}" for own in found]
    lines = [
        "Beside what DEFault++ reports of itself, on its own runs, model-task pairs held out:",
        "",
        "| | encoders | DEFault++ | decoders | DEFault++ |",
        "|---|---|---|---|---|",
        f"| runs (faulty / clean) | {runs[0]} | | {runs[1]} | |",
    ]
    for name, theirs in LEVELS.items():
        lines.append(_line(name, [_level(own, name) for own in found], theirs))
    by_category = [_of_categories(own) for own in kinds]
    for category in category_order(sorted(set().union(*by_category))):
        ours = [own.get(category) for own in by_category]
        theirs_of = CAUSES.get(category, (None, None))
        lines.append(_line(f"… root causes of {category}", ours, theirs_of))
    return lines


def _level(found: Figures, name: str) -> float:
    return {
        "detection F1": found.detection.f1,
        "category macro-F1": found.category_f1,
        "root cause macro-F1": found.cause_f1,
    }[name]


def _of_categories(predictions: Sequence[Prediction]) -> dict[str, float]:
    """Category -> macro-F1 of its root causes."""
    parts: dict[str, list[float]] = {}
    for name, rates in by_class(cause_pairs(predictions)).items():
        parts.setdefault(name.split("/")[0], []).append(rates.f1)
    return {category: sum(f1) / len(f1) for category, f1 in parts.items()}


def _line(name: str, ours: Sequence[float | None], theirs: Sequence[float | None]) -> str:
    cells = [cell for pair in zip(ours, theirs, strict=True) for cell in pair]
    return f"| {name} | {' | '.join('–' if cell is None else f'{cell:.3f}' for cell in cells)} |"
