"""What an evaluation trains on and what it answers for: the ways to hold out whole groups."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from diagnoser.fitting import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from diagnoser.manifest import Run

TREES = "trees"
"""The variant that is no network: gradient-boosted trees on the same features."""


@dataclass(frozen=True)
class Fold:
    """A training and the runs it must answer for. ``view`` says how was held out, ``name`` what;
    ``variant``: empty for the network as it is, :data:`TREES`, or the name of an ablation."""

    view: str
    name: str
    training: tuple[Run, ...]
    held: tuple[Run, ...]
    settings: Settings
    variant: str = ""

    def varied(self, variant: str) -> Fold:
        """The same for another learner."""
        if variant == TREES:
            return replace(self, variant=variant)
        shape = replace(self.settings.shape, without=(variant,))
        return replace(self, variant=variant, settings=replace(self.settings, shape=shape))


def plan(
    runs: Sequence[Run], count: int, settings: Settings, variants: Collection[str] = ()
) -> list[Fold]:
    """All trainings of an evaluation. ``variants`` are compared where pairs are held out; the trees
    everywhere."""
    pairs = by_pairs(runs, count, settings)
    others = [*by_family(runs, settings), *by_size(runs, settings), *by_operator(runs, settings)]
    planned = [*pairs, *others]
    for variant in variants:
        chosen = [*pairs, *others] if variant == TREES else pairs
        planned += [fold.varied(variant) for fold in chosen]
    return planned


def by_pairs(runs: Sequence[Run], count: int, settings: Settings) -> list[Fold]:
    """Model-task pairs, dealt into ``count`` folds."""
    grouped = group_folds(runs, count)
    if len(grouped) < 2:
        return []
    return [_fold("pairs", name, runs, _in_groups(held), settings) for name, held in grouped]


def by_family(runs: Sequence[Run], settings: Settings) -> list[Fold]:
    """One family after the other, with its kin."""
    lineages = sorted({run.lineage for run in runs})
    if len(lineages) < 2:
        return []
    return [_fold("families", name, runs, _in_lineage(name), settings) for name in lineages]


def by_size(runs: Sequence[Run], settings: Settings, share: float = 0.2) -> list[Fold]:
    """The largest models: about ``share`` of the runs, by layers times width."""
    sizes = sorted(run.cells for run in runs)
    if not sizes or sizes[0] == sizes[-1]:
        return []
    limit = sizes[round((1 - share) * (len(sizes) - 1))]
    limit = limit if limit > sizes[0] else sizes[-1]
    name = f"layers × width ≥ {limit}"
    return [_fold("sizes", name, runs, lambda run: run.cells >= limit, settings)]


def by_operator(runs: Sequence[Run], settings: Settings, count: int = 2) -> list[Fold]:
    """Of every root cause that several operators bring about, some of these, in turn; with them the
    clean runs of some model-task pairs. A cause with a single operator is never asked for."""
    operators: dict[str, set[str]] = {}
    for run in runs:
        if run.key and run.operator:
            operators.setdefault(run.key, set()).add(run.operator)
    grouped = group_folds([run for run in runs if not run.faulty], count)
    if len(grouped) < 2 or all(len(found) < 2 for found in operators.values()):
        return []
    folds = []
    for number, (_, groups) in enumerate(grouped):
        left = {
            operator
            for found in operators.values()
            if len(found) > 1
            for operator in sorted(found)[number::count]
        }
        held = _of_operators(left, groups)
        folds.append(_fold("operators", ", ".join(sorted(left)), runs, held, settings))
    return folds


def group_folds(runs: Sequence[Run], count: int) -> list[tuple[str, set[str]]]:
    """Model-task pairs dealt into ``count`` folds of about the same number of runs, families
    spread over the folds."""
    sizes: dict[str, int] = {}
    family: dict[str, str] = {}
    for run in runs:
        sizes[run.group] = sizes.get(run.group, 0) + 1
        family[run.group] = run.family
    folds: list[set[str]] = [set() for _ in range(min(count, len(sizes)))]
    for group in sorted(sizes, key=lambda g: (-sizes[g], g)):
        target = min(
            folds,
            key=lambda fold: (
                sum(family[g] == family[group] for g in fold),
                sum(sizes[g] for g in fold),
            ),
        )
        target.add(group)
    return [(", ".join(sorted(fold)), fold) for fold in folds]


def _in_groups(groups: set[str]) -> Callable[[Run], bool]:
    return lambda run: run.group in groups


def _in_lineage(lineage: str) -> Callable[[Run], bool]:
    return lambda run: run.lineage == lineage


def _of_operators(operators: set[str], groups: set[str]) -> Callable[[Run], bool]:
    return lambda run: run.operator in operators if run.faulty else run.group in groups


def _fold(
    view: str, name: str, runs: Sequence[Run], held: Callable[[Run], bool], settings: Settings
) -> Fold:
    return Fold(
        view,
        name,
        tuple(run for run in runs if not held(run)),
        tuple(run for run in runs if held(run)),
        settings,
    )
