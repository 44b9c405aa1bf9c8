"""What an evaluation trains on and what it answers for: the ways to hold out whole groups."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from diagnoser.fitting import Settings
    from diagnoser.manifest import Run

TREES = "trees"
"""The variant that is no network: gradient-boosted trees on the same features."""
EVERYWHERE = (TREES, "messages")
"""Variants compared whatever is held out: what is no network, and what is no graph network."""


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


@dataclass(frozen=True)
class Cut:
    """A group of runs held out, told by what ``held`` says of a run."""

    view: str
    name: str
    held: Callable[[Run], bool]

    def fold(self, runs: Sequence[Run], asked: Sequence[Run], settings: Settings) -> Fold:
        """Trained on the runs that are not held out, asked about those of ``asked`` that are."""
        return Fold(
            self.view,
            self.name,
            tuple(run for run in runs if not self.held(run)),
            tuple(run for run in asked if self.held(run)),
            settings,
        )


def plan(
    runs: Sequence[Run],
    count: int,
    settings: Settings,
    variants: Collection[str] = (),
    asked: Sequence[Run] | None = None,
) -> list[Fold]:
    """All trainings of an evaluation that have a run to answer for. ``variants`` are compared where
    pairs are held out, those of :data:`EVERYWHERE` everywhere. ``asked``: about these instead of
    those learnt from; what is held out depends on ``runs`` alone."""
    cuts = [*by_pairs(runs, count), *by_family(runs), *by_size(runs), *by_operator(runs)]
    every = [cut.fold(runs, runs if asked is None else asked, settings) for cut in cuts]
    planned = [fold for fold in every if fold.held]
    pairs = [fold for fold in planned if fold.view == "pairs"]
    varied = [
        fold.varied(variant)
        for variant in variants
        for fold in (planned if variant in EVERYWHERE else pairs)
    ]
    return [*planned, *varied]


def by_pairs(runs: Sequence[Run], count: int) -> list[Cut]:
    """Model-task pairs, dealt into ``count`` folds."""
    grouped = group_folds(runs, count)
    if len(grouped) < 2:
        return []
    return [Cut("pairs", name, _in_groups(held)) for name, held in grouped]


def by_family(runs: Sequence[Run]) -> list[Cut]:
    """One family after the other, with its kin."""
    lineages = sorted({run.lineage for run in runs})
    if len(lineages) < 2:
        return []
    return [Cut("families", name, _in_lineage(name)) for name in lineages]


def by_size(runs: Sequence[Run], share: float = 0.2) -> list[Cut]:
    """The largest models: about ``share`` of the runs, by layers times width."""
    sizes = sorted(run.cells for run in runs)
    if not sizes or sizes[0] == sizes[-1]:
        return []
    limit = sizes[round((1 - share) * (len(sizes) - 1))]
    limit = limit if limit > sizes[0] else sizes[-1]
    return [Cut("sizes", f"layers × width ≥ {limit}", lambda run: run.cells >= limit)]


def by_operator(runs: Sequence[Run], count: int = 2) -> list[Cut]:
    """Of every root cause that several operators bring about, some of these, in turn; with them the
    clean runs of some model-task pairs. A cause with a single operator is never asked for."""
    operators: dict[str, set[str]] = {}
    for run in runs:
        if run.key and run.operator:
            operators.setdefault(run.key, set()).add(run.operator)
    grouped = group_folds([run for run in runs if not run.faulty], count)
    if len(grouped) < 2 or all(len(found) < 2 for found in operators.values()):
        return []
    cuts = []
    for number, (_, groups) in enumerate(grouped):
        left = {
            operator
            for found in operators.values()
            if len(found) > 1
            for operator in sorted(found)[number::count]
        }
        cuts.append(Cut("operators", ", ".join(sorted(left)), _of_operators(left, groups)))
    return cuts


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
