"""From the run's state to what header, footer and status line say. Pure."""

from __future__ import annotations

import math

from msgspec.structs import replace

from monitor import glyphs
from monitor.breakpoints import Breakpoints
from monitor.charts.line import Line, Piece
from monitor.formatting import clipped
from monitor.replaying import Replaying
from monitor.run_model import RunModel, StepMark
from monitor.sources.source import Position
from monitor.viewing import Viewing
from monitor.widgets.run_header import HeaderData
from monitor.widgets.scrub_bar import ScrubData

_LOSS = "training/loss"
_STOPS = 30
"""Cells that the breakpoints may take."""


def header_data(
    model: RunModel, viewing: Viewing, title: str, replaying: Replaying | None
) -> HeaderData:
    """What the header shows now; numbers stand still while the view is paused."""
    header = model.header
    frozen = viewing.frozen
    curves = model.curves(_LOSS, frozen)
    known = bool(curves and len(curves[0])) and model.measured(_LOSS)
    return HeaderData(
        title=title,
        run=header.name or header.run if header else "",
        anatomy=header.anatomy if header else None,
        step=model.step if frozen is None else frozen,
        steps_per_second=model.steps_per_second,
        loss=float(curves[0].latest[-1]) if known else math.nan,
        loss_known=known,
        overhead=model.overhead,
        every=header.settings.get("every", "") if header else "",
        seconds=model.clock.elapsed,
        ignored=model.ignored,
        link=model.link,
        state=model.state,
        view_paused=frozen is not None and replaying is None,
        position=_position(replaying, frozen),
    )


def _position(replaying: Replaying | None, frozen: int | None) -> Position | None:
    """Where a replay stands, or at which step of what it read one looks back."""
    if replaying is None:
        return None
    position = replaying.position
    return position if frozen is None else replace(position, step=frozen, playing=False)


def scrub_data(
    model: RunModel, viewing: Viewing, replaying: Replaying | None, flag: int | None
) -> ScrubData | None:
    """Where on the way through the past one stands; None while a live run is shown as it is."""
    marks = list(model.marks())
    if flag is not None:
        marks.append(StepMark(flag, "flagged"))
    first = model.first_step or 0
    if replaying is not None:
        position = _position(replaying, viewing.frozen)
        assert position is not None
        playing = position.playing and not position.at_end
        word = f"{position.speed:g}×" if playing else "at its end" if position.at_end else "paused"
        sign = glyphs.PLAYING if playing else glyphs.ENDED if position.at_end else glyphs.PAUSED
        last = max(position.last_step, first + 1)
        return ScrubData(position.step, (first, last), word, sign, tuple(marks))
    if viewing.frozen is None:
        return None
    newest = model.step or 0
    behind = newest - viewing.frozen
    word = f"{behind} step{'' if behind == 1 else 's'} back" if behind else "paused"
    span = (first, max(newest, first + 1))
    return ScrubData(viewing.frozen, span, word, glyphs.PAUSED, tuple(marks))


def step_notes(viewing: Viewing, breakpoints: Breakpoints) -> Line:
    """What the steps on screen are narrowed to: cursor, zoom, smoothing; where it will stop."""
    notes: list[Piece] = []
    if breakpoints.points:
        notes.append((f"{glyphs.PAUSED} {clipped(breakpoints.text, _STOPS)}  ", "accent"))
    if viewing.smoothing and viewing.view in ("overview", "metrics"):
        notes.append((f"EMA {viewing.smoothing:g}  ", "muted"))
    if viewing.rank is not None:
        notes.append((f"rank {viewing.rank}  ", "warn"))
    if viewing.steps.zoomed is not None:
        first, last = viewing.steps.zoomed
        notes.append((f"zoom {first}–{last}  ", "warn"))
    if viewing.steps.cursor is not None:
        notes.append((f"cursor {viewing.steps.cursor} ", "accent bold"))
    return tuple(notes)


def footer_labels(
    viewing: Viewing, replaying: Replaying | None, holding: bool, over: bool, compared: bool
) -> dict[str, str]:
    """Labels that say what a key would do now; ``holding``: the training is paused by us;
    ``over``: there is no training any more, so that keys which steer it are left out;
    ``compared``: other runs are compared with this one."""
    labels: dict[str, str] = {}
    if compared:
        labels["toggle_difference"] = "Difference"
    if over:
        labels |= dict.fromkeys(("toggle_training", "step_training", "sample"), "")
    if viewing.frozen is not None:
        labels["toggle_view"] = "Unpause"
    elif viewing.choice.enlarged is not None:
        labels["leave"] = "Back"
    if holding:
        labels["toggle_training"] = "Resume training"
        labels["step_training"] = "One step"
    if replaying is not None and replaying.position.playing and not replaying.position.at_end:
        labels["toggle_play"] = "Pause"
    return labels


def status_of(model: RunModel, viewing: Viewing, message: str) -> tuple[str, str]:
    """Text and role of the status line; empty text hides it."""
    if message:
        return message, "fg"
    if model.text and model.link in ("lost", "silent", "ended", "connecting"):
        role = {"lost": "bad", "silent": "warn"}.get(model.link, "muted")
        return model.text, role
    return "", "muted"
