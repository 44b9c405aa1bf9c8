"""A run's verdict in a few words, for where several runs stand beside each other. Pure."""

from __future__ import annotations

from diagnoser.diagnosis import Diagnosis
from monitor import glyphs
from monitor.charts.line import Piece
from monitor.diagnosing import DiagnosisState
from monitor.formatting import spoken
from monitor.remembered import Remembered
from monitor.run_model import RunModel

_NONE = "no verdict"
_BEHIND = 20
"""Samples that a diagnosis may be behind without its being told."""


def short_verdict(state: DiagnosisState, model: RunModel) -> Piece:
    """Sign and word, category and root cause; without a verdict the reason. And its role."""
    diagnosis = state.diagnosis
    if state.phase in ("off", "failed"):
        return f"{_NONE}: {state.error}", "warn"
    if diagnosis is None or diagnosis.frames == 0:
        return _before_the_first(state, model), "muted"
    text, role = _words(diagnosis)
    if state.crash is not None:
        text += f", died at step {state.crash.step}"
    steps = model.sampled_steps()
    if len(steps) > _BEHIND and diagnosis.last_step < steps[-_BEHIND]:
        text += f" (so far: step {diagnosis.last_step})"
    return text, role


def _words(diagnosis: Diagnosis) -> Piece:
    if diagnosis.verdict == "insufficient":
        frames = f"{diagnosis.frames} frame{'' if diagnosis.frames == 1 else 's'}"
        return f"{glyphs.WAITING} not enough evidence yet, {frames}", "accent"
    return in_words(diagnosis)


def in_words(known: Diagnosis | Remembered) -> Piece:
    """A verdict that was given: sign and word, category and root cause. And its role."""
    if known.verdict == "healthy":
        return f"{glyphs.HEALTHY} healthy", "ok"
    names = [spoken(name) for name in (known.category, known.root_cause) if name]
    cause = f" {glyphs.RIGHT} ".join(names) or "no cause stands out"
    return f"{glyphs.FAULTY} FAULTY {cause}", "bad bold"


def _before_the_first(state: DiagnosisState, model: RunModel) -> str:
    if model.link == "lost" or (model.over and model.frames == 0):
        why = "its model was never seen" if model.header is None else "no frame was measured"
        return f"{_NONE}: {why}"
    if model.frames == 0:
        return f"{_NONE} yet: no frame was read"
    if state.phase == "loading":
        return f"{_NONE} yet: diagnosis to come"
    return f"{_NONE} yet"
