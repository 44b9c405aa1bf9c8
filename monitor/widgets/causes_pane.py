"""What it may be, how to tell, what to try: the ranking of root causes in lines."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from diagnoser.diagnosis import Diagnosis
from diagnoser.phrases import layer_list
from monitor import glyphs
from monitor.charts.line import Line, Piece
from monitor.diagnosing import DiagnosisState
from monitor.formatting import clipped, percent, spoken
from monitor.telling_apart import Clue, check_of
from monitor.widgets.diagnosis_lines import lines_for, title_of
from monitor.widgets.list_pane import ListPane
from monitor.widgets.pane_title import set_title

SHOWN = 4
"""Alternatives listed."""
_LEAST = 0.005
_BAR = 10
_ROOMY = 11
"""Lines from which on titles, clues and empty lines have their place."""


@dataclass(frozen=True)
class Alternative:
    """Another root cause, and the contracts that would tell it from the one found."""

    category: str
    root_cause: str
    probability: float
    clues: tuple[Clue, ...] = ()


def found_lines(diagnosis: Diagnosis, width: int) -> list[Line]:
    """The cause found: name, probability, title, layers."""
    if diagnosis.category is None:
        return [(("faulty, but no cause stands out", "fg"),)]
    name = f"{'unsure: ' if diagnosis.unsure else ''}{spoken(diagnosis.category)}"
    probability = diagnosis.category_probability
    title = ""
    if diagnosis.root_cause:
        name += f" {glyphs.RIGHT} {spoken(diagnosis.root_cause)}"
        probability = diagnosis.root_cause_probability
        title = title_of(diagnosis.category, diagnosis.root_cause)
    lines: list[Line] = [_ranked(name, probability, width, "fg bold")]
    if title:
        lines.append(((f"  {clipped(title[:1].upper() + title[1:], width - 2)}", "fg"),))
    where = layer_list(diagnosis.layers)
    since = diagnosis.first_flagged_step
    told = [where, f"since step {since}" if since is not None else ""]
    lines.append(((clipped("  " + ", ".join(part for part in told if part), width), "warn"),))
    return lines


def _ranked(name: str, probability: float | None, width: int, role: str) -> Line:
    share = probability if probability is not None and math.isfinite(probability) else 0.0
    full = round(share * _BAR)
    text = f"{percent(share):>6} "
    pieces: list[Piece] = [(text, role)]
    room = width - len(text)
    if room > _BAR + 24:
        pieces += [
            (glyphs.BAR_FULL * full, "warn"),
            (glyphs.BAR_EMPTY * (_BAR - full) + " ", "faint"),
        ]
        room -= _BAR + 1
    pieces.append((clipped(name, room), role))
    return tuple(pieces)


def alternative_lines(other: Alternative, width: int) -> list[Line]:
    """One alternative, with what would tell it apart."""
    name = f"{spoken(other.category)} {glyphs.RIGHT} {spoken(other.root_cause)}"
    lines = [_ranked(name, other.probability, width, "fg")]
    for clue in other.clues[:2]:
        head = f"{_sign(clue)} {'against' if clue.against else 'for':<7} "
        text = clipped(clue.sentence(), width - 4 - len(head))
        role = "muted" if clue.against else "warn"
        lines.append((("    ", "fg"), (head, role), (text, "muted")))
    if not other.clues:
        check = check_of(f"{other.category}/{other.root_cause}")
        if check:
            text = clipped(check, width - 11)
            lines.append((("    ", "fg"), ("check  ", "muted"), (text, "muted")))
    return lines


def _sign(clue: Clue) -> str:
    return glyphs.FAULTY if clue.against else glyphs.HEALTHY


def _short(diagnosis: Diagnosis, alternatives: Sequence[Alternative], width: int) -> list[Line]:
    """Where there is little room: a line for the cause found, one for each alternative."""
    first, _, where = found_lines(diagnosis, width)
    told = "".join(text for text, _ in where).strip()
    if sum(len(text) for text, _ in first) + len(told) + 3 <= width:
        lines: list[Line] = [(*first, (f"   {told}", "warn"))]
    else:
        lines = [first, where]
    for other in alternatives[:2]:
        name = f"{spoken(other.category)} {glyphs.RIGHT} {spoken(other.root_cause)}"
        head = f"{percent(other.probability):>6} {name}"
        clue = f"  {_sign(other.clues[0])} {other.clues[0].sentence()}" if other.clues else ""
        lines.append(((head, "fg"), (clipped(clue, max(0, width - len(head))), "muted")))
    return lines


def _block(head: str, text: str, width: int) -> list[Line]:
    wrapped = textwrap.wrap(text, max(10, width - 7))
    return [
        ((f"{head:<7}" if index == 0 else " " * 7, "ok bold"), (part, "fg"))
        for index, part in enumerate(wrapped)
    ]


def laid(
    state: DiagnosisState, alternatives: Sequence[Alternative], width: int, height: int
) -> tuple[tuple[Line, ...], list[int]]:
    """Ranking, repair and check in at most ``height`` lines; the repair is never crowded out.

    Beside them the cause that each line of the ranking belongs to: 0 the one found, from 1 on the
    alternatives.
    """
    diagnosis = state.diagnosis
    if diagnosis is None or state.phase == "failed" or diagnosis.verdict != "faulty":
        return lines_for(state, width, height), []
    lines = found_lines(diagnosis, width)
    repair = _block("Try", diagnosis.repair, width) if diagnosis.repair else []
    key = f"{diagnosis.category}/{diagnosis.root_cause}"
    if height < _ROOMY and len(lines) == 3:
        short = _short(diagnosis, alternatives, width)
        told = min(2, len(alternatives))
        owners = [*[0] * (len(short) - told), *range(1, told + 1)]
        return tuple([*short, *repair][:height]), owners[:height]
    check = _block("Check", check_of(key), width) if check_of(key) else []
    room = height - len(lines) - min(len(repair), max(3, height // 3)) - 1
    others: list[Line] = []
    owners, their = [0] * len(lines), list[int]()
    for place, other in enumerate(alternatives, 1):
        block = alternative_lines(other, width)
        if len(others) + len(block) > room:
            break
        others += block
        their += [place] * len(block)
    if others and len(others) < room:
        lines.append((("or", "muted"),))
        owners.append(-1)
    lines += others
    owners += their
    for part in (repair, check):
        if part and len(lines) + 2 <= height:
            lines += [(), *part]
    return tuple(lines[:height]), owners[:height]


def alternatives_of(diagnosis: Diagnosis) -> tuple[tuple[str, str, float], ...]:
    """Candidates beside the cause found that are worth a line."""
    found = (diagnosis.category, diagnosis.root_cause)
    return tuple(
        (c.category, c.root_cause, c.probability)
        for c in diagnosis.ranking
        if (c.category, c.root_cause) != found and c.probability >= _LEAST
    )[:SHOWN]


class CausesPane(ListPane):
    """The ranking of root causes. The cause found is entry 0, the alternatives follow."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._state = DiagnosisState()
        self._alternatives: tuple[Alternative, ...] = ()
        self._chosen: int | None = None

    @property
    def entries(self) -> int:
        """Causes on screen."""
        return max(self._owners, default=-1) + 1

    def show(
        self,
        state: DiagnosisState,
        alternatives: Sequence[Alternative],
        chosen: int | None = None,
    ) -> None:
        """Draw a diagnosis and what it might be instead, one of the causes marked."""
        self._state, self._alternatives, self._chosen = state, tuple(alternatives), chosen
        faulty = state.diagnosis is not None and state.diagnosis.verdict == "faulty"
        set_title(self, "Causes · ranking, how to tell, what to try" if faulty else "Verdict")
        self.redraw()

    def compose_lines(self, width: int, height: int) -> Sequence[Line]:
        lines, self._owners = laid(self._state, self._alternatives, width, height)
        if self._chosen is None or self._chosen not in self._owners:
            return lines
        at = list(self._owners).index(self._chosen)
        return (*lines[:at], _marked(lines[at]), *lines[at + 1 :])


def _marked(line: Line) -> Line:
    """With the sign of the chosen entry in its first cell, where that is blank."""
    (text, role), *rest = line
    if not text.startswith(" "):
        return line
    return ((glyphs.SELECTED, "accent bold"), (text[1:], role), *rest)
