"""The rolling diagnosis of one run: a frame in, a diagnosis out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from diagnoser import schema, weights
from diagnoser.contracts import ContractWatch, fired_rules
from diagnoser.decision import Decision, State
from diagnoser.diagnosis import Candidate, Diagnosis
from diagnoser.evidence import gather
from diagnoser.features import RollingFeatures
from diagnoser.importance import by_kind, importance
from diagnoser.origin import locate
from diagnoser.taxonomy import CATEGORY_NAMES, ROOT_CAUSE_KEYS, root_causes
from diagnoser.votes import CAUSE_CATEGORY
from probe.nodes import kind_of

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from diagnoser.contracts import Firing
    from diagnoser.model import Output
    from diagnoser.weights import Trained
    from probe.schema import Frame, Header

    Floats = npt.NDArray[np.float32]

RANKED = 8

SURE = 0.5
"""Probability of a category, given that the run is faulty, from which on it is named for sure."""


class EngineError(ValueError):
    """A run that cannot be diagnosed with these weights. The message says why and what to do."""


class Engine:
    """Diagnoses one run as its frames come, at any interval.

    ``weights``: a file of :mod:`diagnoser.train`, or weights already loaded; by default those of
    the package. Frames of other ranks than the header's change nothing. Raises
    :class:`EngineError` for a run whose metrics are not those of this version, for unreadable
    weights and for frames that do not fit the header.
    """

    def __init__(self, header: Header, weights: Path | Trained | None = None) -> None:
        self._trained = _loaded(weights)
        try:
            self._features = RollingFeatures(header)
        except schema.SchemaMismatch as error:
            raise EngineError(str(error)) from None
        self._header = header
        self._watch = ContractWatch(self._features.columns)
        self._decision = Decision(self._trained.calibration.thresholds, CAUSE_CATEGORY)
        self._diagnosis = Diagnosis(
            run=header.run, frames=0, last_step=-1, verdict="insufficient", probability=float("nan")
        )

    @property
    def diagnosis(self) -> Diagnosis:
        """The latest one; ``insufficient`` before the first frame."""
        return self._diagnosis

    def rebind(self, header: Header) -> None:
        """Go on under a later header of the same run; shared columns keep their history."""
        same_sites = header.anatomy.sites == self._header.anatomy.sites
        try:
            self._features.rebind(header)
        except schema.SchemaMismatch as error:
            raise EngineError(str(error)) from None
        self._header = header
        self._watch.rebind(self._features.columns)
        if not same_sites:
            self._decision.forget_nodes()

    def update(self, frame: Frame) -> Diagnosis:
        """The diagnosis after this frame."""
        if frame.rank != self._header.rank:
            return self._diagnosis
        try:
            self._features.push(frame)
        except ValueError as error:
            raise EngineError(str(error)) from None
        self._watch.update(frame)
        columns = self._features.columns
        state = self._features.state()
        features = self._features.features(state)
        firings = self._watch.firings()
        fired = fired_rules(firings)
        scores, output = self._trained.run([columns.graph], [features.nodes], fired[None])
        decided = self._decision.update(frame.step, scores[0], features.measured)
        if not decided.flagged:
            origin = locate(columns.graph, decided.origin * decided.probability, firings, None)
            self._diagnosis = Diagnosis(
                verdict="healthy" if decided.enough else "insufficient",
                suspicion=origin.suspicion,
                evidence=gather(columns, state, firings, None, frame.step),
                run=self._header.run,
                frames=features.frames,
                last_step=frame.step,
                probability=decided.probability,
                categories=_categories(decided),
            )
            return self._diagnosis
        category, cause = chosen(decided)
        name = CATEGORY_NAMES[category]
        origin = locate(columns.graph, decided.origin, firings, name)
        self._diagnosis = Diagnosis(
            verdict="faulty",
            first_flagged_step=decided.first_flagged_step,
            category=name,
            category_probability=float(decided.category[category]),
            unsure=bool(decided.category[category] < SURE),
            root_cause=_name(cause),
            root_cause_probability=float(decided.joint[cause]),
            layers=origin.layers,
            ranking=_ranking(decided),
            categories=_categories(decided),
            importance=self._importance(output, cause, fired, firings),
            suspicion=origin.suspicion,
            evidence=gather(columns, state, firings, name, frame.step),
            repair=root_causes()[ROOT_CAUSE_KEYS[cause]].repair,
            run=self._header.run,
            frames=features.frames,
            last_step=frame.step,
            probability=decided.probability,
        )
        return self._diagnosis

    def _importance(
        self, output: Output, cause: int, fired: Floats, firings: tuple[Firing, ...]
    ) -> dict[str, float]:
        """Node kinds by their share in the choice; only kinds that this model has."""
        graph = self._features.columns.graph
        met_at = torch.zeros(len(fired), dtype=torch.long)
        for firing in reversed(firings):
            if firing.rank < len(fired):
                met_at[firing.rank] = graph.kinds.index(kind_of(firing.node))
        logits = by_kind(
            self._trained.network.votes, output.parts[0], torch.from_numpy(fired), met_at
        )
        present = torch.from_numpy(graph.counts > 0)
        shares = importance(logits * present, cause).tolist()
        found = {
            kind: round(share, 4)
            for kind, share in zip(graph.kinds, shares, strict=True)
            if share >= 0.005
        }
        rest = sum(found.values())
        return {
            kind: share / rest for kind, share in sorted(found.items(), key=lambda item: -item[1])
        }


def chosen(state: State) -> tuple[int, int]:
    """Indices of the category found, and of the likeliest root cause within it."""
    category = int(np.argmax(state.category))
    within = np.where(np.array(CAUSE_CATEGORY) == category, state.joint, -1.0)
    return category, int(np.argmax(within))


def _categories(state: State) -> dict[str, float]:
    return {name: float(share) for name, share in zip(CATEGORY_NAMES, state.category, strict=True)}


def _name(cause: int) -> str:
    return ROOT_CAUSE_KEYS[cause].split("/")[1]


def _ranking(state: State) -> tuple[Candidate, ...]:
    best = np.argsort(-state.joint, kind="stable")[:RANKED]
    return tuple(
        Candidate(CATEGORY_NAMES[CAUSE_CATEGORY[number]], _name(number), float(state.joint[number]))
        for number in best
    )


def _loaded(given: Path | Trained | None) -> Trained:
    if isinstance(given, weights.Trained):
        return given
    try:
        return weights.load(given)
    except weights.WeightsError as error:
        raise EngineError(str(error)) from None
