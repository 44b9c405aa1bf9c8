"""The diagnosis as lines of text: verdict, cause, evidence, what to try."""

from __future__ import annotations

import textwrap

from diagnoser.crashes import Crash
from diagnoser.diagnosis import Diagnosis
from diagnoser.phrases import layer_list
from diagnoser.taxonomy import root_causes
from monitor import glyphs
from monitor.charts.line import Line, Piece
from monitor.diagnosing import DiagnosisState
from monitor.formatting import clipped, percent, spoken

BAR_WIDTH = 20


def lines_for(state: DiagnosisState, width: int, height: int) -> tuple[Line, ...]:
    """At most ``height`` lines of at most ``width`` cells; what matters most comes first."""
    told: tuple[Line, ...] = ()
    if state.crash is not None:
        told += _crashed(state.crash, width, max(2, height // 2))
    if state.phase == "failed":
        told += _failed(state, width)
    elif state.diagnosis is None and state.crash is None:
        return _waiting(state, width)[:height]
    return (*told, *_body(state.diagnosis, width, max(0, height - len(told))))[:height]


def _crashed(crash: Crash, width: int, room: int) -> tuple[Line, ...]:
    wrapped = textwrap.wrap(f"died at step {crash.step}: {crash.text}", max(10, width - 2))
    died: list[Line] = [
        ((f"{glyphs.LOST} " if index == 0 else "  ", "bad bold"), (text, "bad"))
        for index, text in enumerate(wrapped)
    ]
    likely = _paragraph(f"Likely {crash.category}", crash.reason, width) if crash.category else []
    kept = _shortened(likely, max(1, room // 2), width)
    return (*_shortened(died, max(1, room - len(kept)), width), *kept, ())


def _failed(state: DiagnosisState, width: int) -> tuple[Line, ...]:
    wrapped = textwrap.wrap(f"diagnosis stopped: {state.error}", max(10, width - 2))
    lines: list[Line] = [
        ((f"{glyphs.LOST} " if index == 0 else "  ", "warn"), (text, "warn"))
        for index, text in enumerate(wrapped)
    ]
    return (*_shortened(lines, 4, width), ())


def _waiting(state: DiagnosisState, width: int) -> tuple[Line, ...]:
    if state.phase == "off":
        return ((("no diagnosis", "muted"),),)
    if state.phase == "ready":
        return (((f"{glyphs.WAITING} ", "accent"), ("waiting for the first frame", "fg")),)
    note = clipped("the charts do not wait for it", width - 2)
    return (
        ((f"{glyphs.WAITING} ", "accent"), ("diagnosis loading…", "fg")),
        (("  " + note, "muted"),),
    )


def _body(diagnosis: Diagnosis | None, width: int, height: int) -> tuple[Line, ...]:
    if diagnosis is None:
        return ()
    if diagnosis.verdict == "insufficient":
        return _insufficient(diagnosis, width)[:height]
    if diagnosis.verdict == "healthy":
        return _healthy(diagnosis, width)[:height]
    return _faulty(diagnosis, width, height)


def _insufficient(diagnosis: Diagnosis, width: int) -> tuple[Line, ...]:
    frames = f"{diagnosis.frames} frame{'' if diagnosis.frames == 1 else 's'}"
    head: Line = (
        (f"{glyphs.WAITING} ", "accent bold"),
        ("not enough evidence yet", "fg bold"),
        (f"   {frames} so far", "muted"),
    )
    return (head, *_evidence(diagnosis, width, 4))


def _healthy(diagnosis: Diagnosis, width: int) -> tuple[Line, ...]:
    probability: Line = (
        ("probability of a fault ", "muted"),
        (percent(diagnosis.probability), "fg"),
    )
    after = f"after {diagnosis.frames} frames, step {diagnosis.last_step}"
    one = sum(len(text) for text, _ in probability) + 2 + len(after) <= width
    told: tuple[Line, ...] = (
        ((*probability, (f"  {after}", "muted")),) if one else (probability, ((after, "muted"),))
    )
    head: Line = ((f"{glyphs.HEALTHY} ", "ok bold"), ("healthy", "ok bold"))
    return (head, (), *told, *_evidence(diagnosis, width, 3))


def _faulty(diagnosis: Diagnosis, width: int, height: int) -> tuple[Line, ...]:
    lines = [_verdict_line(diagnosis, width), *_cause(diagnosis, width)]
    repair = _paragraph("Try", diagnosis.repair, width) if diagnosis.repair else []
    alternatives = _alternatives(diagnosis, width)
    room = height - len(lines) - len(alternatives)
    # The repair may take a third of what is left; evidence takes the rest.
    kept_repair = _shortened(repair, max(2, room // 3), width) if repair else []
    evidence = _evidence(diagnosis, width, room - len(kept_repair))
    spare = room - len(evidence) - len(kept_repair)
    if spare > 1 and len(repair) > len(kept_repair):
        kept_repair = _shortened(repair, len(kept_repair) + spare - 1, width)
    lines += alternatives
    for block in (evidence, kept_repair):
        if block and len(lines) + 1 + len(block) <= height:
            lines.append(())
        lines += block
    return tuple(lines[:height])


def _verdict_line(diagnosis: Diagnosis, width: int) -> Line:
    bar = max(6, min(BAR_WIDTH, width - 40))
    full = min(bar, max(0, round(diagnosis.probability * bar)))
    pieces: list[Piece] = [
        (f"{glyphs.FAULTY} FAULTY ", "bad bold"),
        (" ", "fg"),
        (glyphs.BAR_FULL * full, "bad"),
        (glyphs.BAR_EMPTY * (bar - full), "faint"),
        (f" {percent(diagnosis.probability)}", "bad bold"),
    ]
    if diagnosis.first_flagged_step is not None:
        pieces.append((f"   since step {diagnosis.first_flagged_step}", "fg"))
    return tuple(pieces)


def title_of(category: str, root_cause: str) -> str:
    """A root cause's title from the taxonomy, else its name in words."""
    known = root_causes().get(f"{category}/{root_cause}")
    return known.title if known else spoken(root_cause)


def _cause(diagnosis: Diagnosis, width: int) -> list[Line]:
    lines: list[Line] = []
    if diagnosis.category is None:
        return lines
    pieces: list[Piece] = [("unsure: ", "warn")] if diagnosis.unsure else []
    pieces.append((spoken(diagnosis.category), "fg bold"))
    if diagnosis.category_probability is not None:
        pieces.append((f" {percent(diagnosis.category_probability)}", "muted"))
    if diagnosis.root_cause is not None:
        pieces += [(f" {glyphs.RIGHT} ", "muted"), (spoken(diagnosis.root_cause), "fg bold")]
        if diagnosis.root_cause_probability is not None:
            pieces.append((f" {percent(diagnosis.root_cause_probability)}", "muted"))
    where = layer_list(diagnosis.layers)
    used = sum(len(text) for text, _ in pieces)
    if where and used + len(where) + 3 <= width:
        pieces += [("   ", "fg"), (where, "warn")]
        where = ""
    lines.append(tuple(pieces))
    title = title_of(diagnosis.category, diagnosis.root_cause) if diagnosis.root_cause else ""
    if title:
        lines.append(((clipped(title[:1].upper() + title[1:], width), "fg"),))
    if where:
        lines.append(((clipped(where, width), "warn"),))
    return lines


def _alternatives(diagnosis: Diagnosis, width: int) -> list[Line]:
    others = [
        candidate
        for candidate in diagnosis.ranking
        if (candidate.category, candidate.root_cause) != (diagnosis.category, diagnosis.root_cause)
    ]
    text = ""
    for candidate in others[:3]:
        name = f"{spoken(candidate.category)} {glyphs.RIGHT} {spoken(candidate.root_cause)}"
        longer = f"{text}{' · ' if text else ''}{name} {percent(candidate.probability)}"
        if len(longer) + 4 > width:
            break
        text = longer
    return [(("or  ", "muted"), (text, "muted"))] if text else []


def _evidence(diagnosis: Diagnosis, width: int, room: int) -> list[Line]:
    lines: list[Line] = []
    for found in diagnosis.evidence:
        wrapped = textwrap.wrap(found.text, max(10, width - 2))
        if len(lines) + len(wrapped) > room:
            if not lines and room > 0:
                return _shortened(_bulleted(wrapped), room, width)
            break
        lines += _bulleted(wrapped)
    return lines


def _bulleted(wrapped: list[str]) -> list[Line]:
    return [
        ((f"{glyphs.BULLET} " if index == 0 else "  ", "warn"), (text, "fg"))
        for index, text in enumerate(wrapped)
    ]


def _paragraph(head: str, text: str, width: int) -> list[Line]:
    indent = len(head) + 2
    wrapped = textwrap.wrap(text, max(10, width - indent))
    return [
        ((f"{head}  " if index == 0 else " " * indent, "ok bold"), (part, "fg"))
        for index, part in enumerate(wrapped)
    ]


def _shortened(lines: list[Line], room: int, width: int) -> list[Line]:
    """The first ``room`` lines, the last one ending in an ellipsis where more followed."""
    if len(lines) <= room or room <= 0:
        return lines[: max(room, 0)]
    *others, last = lines[:room]
    used = sum(len(text) for text, _ in last[:-1])
    text, role = last[-1]
    return [*others, (*last[:-1], (clipped(text + " …", width - used), role))]
