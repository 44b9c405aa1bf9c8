"""The outcomes as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from diagnoser.corpus.realworld.case import Case
from diagnoser.corpus.realworld.outcome import Outcome

README = Path(__file__).parent / "README.md"
BEGIN = "<!-- outcomes: begin, written by python -m diagnoser.corpus.realworld --write -->"
END = "<!-- outcomes: end -->"


def results(outcomes: Sequence[Outcome]) -> str:
    """Counts, then a line per case."""
    lines = [
        counts(outcomes),
        "",
        "| issue | run | fault | detected | answer | category | root cause | layers "
        "| earliest contract | fixed left alone |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    return "\n".join(lines + [_row(outcome) for outcome in outcomes])


def counts(outcomes: Sequence[Outcome]) -> str:
    """How many were right, in a sentence."""
    return (
        f"{len(outcomes)} cases: {sum(o.detected for o in outcomes)} detected, "
        f"{sum(o.category_right for o in outcomes)} with the right category, "
        f"{sum(o.root_cause_right for o in outcomes)} with the right root cause; "
        f"{sum(o.fixed_left_alone for o in outcomes)} fixed versions left alone; "
        f"{sum(o.told_apart for o in outcomes)} both detected and left alone when fixed."
    )


def descriptions(cases: Sequence[Case]) -> str:
    """What each case is."""
    lines = ["| issue | what was reported | what goes wrong |", "|---|---|---|"]
    lines += [f"| [{c.name}]({c.url}) | {c.reported} | {c.wrong} |" for c in cases]
    return "\n".join(lines)


def write(text: str, path: Path = README) -> None:
    """Put ``text`` between the markers of the README. Raises ``ValueError`` where it has none."""
    old = path.read_text(encoding="utf-8")
    if BEGIN not in old or END not in old:
        raise ValueError(f"{path} has lost its markers: put the lines {BEGIN!r} and {END!r} back")
    before, rest = old.split(BEGIN, 1)
    path.write_text(f"{before}{BEGIN}\n{text}\n{END}{rest.split(END, 1)[1]}", encoding="utf-8")


def _row(outcome: Outcome) -> str:
    case = outcome.case
    named = "/".join(part for part in (outcome.category, outcome.root_cause) if part)
    cells = [
        f"[{case.name}]({case.url})",
        case.shown,
        f"{case.category}/{case.root_cause}",
        "by its crash" if outcome.by_crash else _yes(outcome.detected),
        named or outcome.buggy.end.verdict,
        _yes(outcome.category_right),
        _yes(outcome.root_cause_right),
        _layers(outcome),
        f"`{outcome.sign}`" if outcome.sign else "none",
        _yes(outcome.fixed_left_alone) if outcome.fixed_left_alone else _alarm(outcome),
    ]
    return f"| {' | '.join(cells)} |"


def _layers(outcome: Outcome) -> str:
    named = ", ".join(map(str, outcome.buggy.end.layers)) or "–"
    if outcome.layers_right is None:
        return named
    return named if outcome.layers_right else f"{named} (it is {_listed(outcome.case.layers)})"


def _listed(layers: Sequence[int]) -> str:
    return ", ".join(map(str, layers))


def _alarm(outcome: Outcome) -> str:
    end, firings = outcome.fixed.end, outcome.fixed.firings
    by = f", `{firings[0].site}/{firings[0].metric}`" if firings else ", no contract"
    what = f": {end.category}/{end.root_cause}" if end.category else " for a while"
    return f"**no**{what}{by}"


def _yes(right: bool) -> str:
    return "yes" if right else "**no**"
