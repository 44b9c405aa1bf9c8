"""Replays cached runs as the engine would see them live, many frames at a time.

The engine scores frame by frame; here the same features, weights, decision and origin are used,
only the network runs on many frames at once. A test holds the two equal.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Protocol

from diagnoser.contracts import verdict
from diagnoser.decision import Decision
from diagnoser.engine import chosen
from diagnoser.origin import locate
from diagnoser.taxonomy import CATEGORY_NAMES, ROOT_CAUSE_KEYS
from diagnoser.votes import CAUSE_CATEGORY

if TYPE_CHECKING:
    import numpy.typing as npt

    from diagnoser.decision import Score
    from diagnoser.extract import RunFeatures
    from diagnoser.graph import Graph
    from diagnoser.manifest import Run
    from diagnoser.weights import Calibration

FRAMES_AT_ONCE = 128


class Scorer(Protocol):
    """What answers to frames: trained weights, or a baseline."""

    @property
    def calibration(self) -> Calibration: ...

    def run(
        self,
        graphs: list[Graph],
        features: list[dict[str, npt.NDArray[Any]]],
        fired: npt.NDArray[Any],
    ) -> tuple[list[Score], Any]:
        """Scores of several frames, and what only some can add to them."""


@dataclass(frozen=True)
class Prediction:
    """The engine's answer to a run at its end, beside the truth and the contracts' own answer."""

    id: str
    group: str
    family: str
    operator: str | None
    truth: str | None
    """``category/root_cause``, None where clean."""
    true_layers: tuple[int, ...]
    start_step: int | None
    frames: int
    faulty: bool
    probability: float
    ever_flagged: bool
    """Flagged at any frame before the fault began; for clean runs at any frame."""
    first_flagged_step: int | None
    delay: int | None
    """Frames from the fault's first to the one that first named its category, both counted."""
    category: str | None
    root_cause: str | None
    layer: int | None
    """The most suspicious layer."""
    layers: tuple[int, ...]
    contract_faulty: bool
    contract_category: str | None
    contract_root_cause: str | None
    contract_layer: int | None
    contract_ever: bool

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def score_frames(trained: Scorer, found: RunFeatures) -> list[Score]:
    """Calibrated scores of every frame of a run."""
    graph = found.graph
    scores: list[Score] = []
    for start in range(0, len(found.steps), FRAMES_AT_ONCE):
        frames = range(start, min(start + FRAMES_AT_ONCE, len(found.steps)))
        part, _ = trained.run(
            [graph] * len(frames),
            [found.at(frame) for frame in frames],
            found.fired[frames.start : frames.stop],
        )
        scores += part
    return scores


def replay(trained: Scorer, run: Run, found: RunFeatures) -> Prediction:
    """The engine's state at the end of a run, and whether it ever flagged what was healthy."""
    decision = Decision(trained.calibration.thresholds, CAUSE_CATEGORY)
    early = False
    delay = None
    state = None
    for number, score in enumerate(score_frames(trained, found)):
        step = int(found.steps[number])
        state = decision.update(step, score, float(found.measured[number]))
        early |= state.flagged and step < run.start
        named = state.flagged and CATEGORY_NAMES[chosen(state)[0]] == run.category
        if delay is None and named and step >= run.start:
            delay = number + 1 - int((found.steps < run.start).sum())
    assert state is not None
    category = cause = None
    layer: int | None = None
    layers: tuple[int, ...] = ()
    if state.flagged:
        best, best_cause = chosen(state)
        category = CATEGORY_NAMES[best]
        cause = ROOT_CAUSE_KEYS[best_cause].split("/")[1]
        origin = locate(found.graph, state.origin, found.firings, category)
        layer, layers = origin.first, origin.layers
    by_contracts = verdict(found.firings)
    healthy = found.steps < run.start
    return Prediction(
        id=run.id,
        group=run.group,
        family=run.family,
        operator=run.operator,
        truth=run.key,
        true_layers=tuple(run.layers),
        start_step=run.start_step if run.faulty else None,
        frames=len(found.steps),
        faulty=state.flagged,
        probability=state.probability,
        ever_flagged=early,
        first_flagged_step=state.first_flagged_step,
        delay=delay,
        category=category,
        root_cause=cause,
        layer=layer,
        layers=layers,
        contract_faulty=by_contracts.faulty,
        contract_category=by_contracts.category,
        contract_root_cause=by_contracts.root_cause,
        contract_layer=by_contracts.layers[0] if by_contracts.layers else None,
        contract_ever=bool(found.any_fired[healthy].any()),
    )
