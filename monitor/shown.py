"""What the panes draw of the run. It stands still while the view is paused."""

from __future__ import annotations

from msgspec import Struct, field
from msgspec.structs import replace

from diagnoser.diagnosis import Diagnosis
from monitor.diagnosing import DiagnosisState
from monitor.run_model import RunModel
from probe.schema import Anatomy, Event


class Shown(Struct, frozen=True):
    """Curves are cut at the step of the pause by themselves; the rest is kept here."""

    diagnosis: DiagnosisState = field(default_factory=DiagnosisState)
    anatomy: Anatomy | None = None
    events: tuple[Event, ...] = ()


def shown_at(model: RunModel, state: DiagnosisState, past: Diagnosis | None, step: int) -> Shown:
    """The run as it was at a step; ``past`` is what the diagnosis said then."""
    was = replace(state, diagnosis=past, crash=None)
    now = shown_now(model, was)
    return replace(now, events=tuple(event for event in now.events if event.step <= step))


def shown_now(model: RunModel, diagnosis: DiagnosisState) -> Shown:
    """The run as it is."""
    events = tuple(sorted(model.events, key=lambda event: event.step))
    return Shown(diagnosis, model.header.anatomy if model.header else None, events)
