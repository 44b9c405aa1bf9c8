"""What shows each fault, and which hurt: tables from the measurements kept in ``diagnoser/data``.

``observability.json`` is written by ``python -m diagnoser.corpus observe CORPUS --write``,
``kills.json`` by ``python -m diagnoser.corpus kill DIR --write``.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec

from diagnoser.faults.catalogue import OPERATORS
from diagnoser.kill_test import PUBLISHED, Kills, Verdict, score
from diagnoser.observability import Group, Metric, Observability, Seen
from diagnoser.taxonomy import CATEGORY_NAMES, ROOT_CAUSE_KEYS

DATA = Path(__file__).parents[1] / "data"
OBSERVABILITY = DATA / "observability.json"
KILLS = DATA / "kills.json"


def read_observability() -> Observability:
    """What the corpus showed when it was last observed."""
    return msgspec.json.decode(OBSERVABILITY.read_bytes(), type=Observability)


def read_kills() -> Kills:
    """What the kill test found when it was last run; no verdict where it never was."""
    if not KILLS.is_file():
        return Kills(design="not run", verdicts=())
    return msgspec.json.decode(KILLS.read_bytes(), type=Kills)


def write(path: Path, data: Observability | Kills) -> None:
    """Keeps measurements beside the code, a line per group so that changes can be read."""
    fields = []
    for name, value in msgspec.to_builtins(data).items():
        text = msgspec.json.encode(value).decode()
        if isinstance(value, list) and value:
            text = ",\n".join(msgspec.json.encode(group).decode() for group in value)
            text = f"[\n{text}\n]"
        fields.append(f'"{name}": {text}')
    path.write_text("{" + ",\n".join(fields) + "}\n", encoding="utf-8")


def _share(part: int, of: int) -> str:
    return f"{part / of:.0%}".replace("%", " %") if of else ""


def _metric(metric: Metric) -> str:
    if metric.effect is None:
        return f"{metric.name} {metric.direction}"
    return f"{metric.name} {metric.direction}{metric.effect:g}"


def _unseen(by: dict[str, Seen]) -> str:
    """Where some run showed nothing."""
    return ", ".join(
        f"{name} {found.runs - found.seen} of {found.runs}"
        for name, found in by.items()
        if found.seen < found.runs
    )


def _severities(group: Group) -> str:
    return ", ".join(
        f"{value} {found.seen}/{found.runs}" for value, found in group.severities.items()
    )


def _hurts(verdicts: Iterable[Verdict]) -> str:
    """Where the loss is worse; ``latent`` where it is nowhere, empty where it was not tried."""
    listed = list(verdicts)
    if not listed:
        return ""
    families = sorted({verdict.family for verdict in listed if verdict.killed})
    return ", ".join(families) if families else "latent"


def _row(*cells: object) -> str:
    return f"| {' | '.join(str(cell) for cell in cells)} |"


def _table(columns: tuple[str, ...], rows: Iterable[str]) -> list[str]:
    return [_row(*columns), "|" + "---|" * len(columns), *rows]


def _told(group: Group) -> tuple[str, str, str, str]:
    return (
        str(group.runs),
        _share(group.fired, group.runs),
        _share(group.runs - group.moved, group.runs),
        _share(group.seen, group.runs),
    )


def unobservable(groups: Iterable[Group]) -> list[Group]:
    """Those that nothing shows in more than half of their runs."""
    return [group for group in groups if 2 * group.seen < group.runs]


def _name(group: Group) -> str:
    return group.cause if group.operator is None else f"{group.operator} ({group.cause})"


def observability(found: Observability, kills: Kills) -> str:
    """The tables in Markdown: root causes, operators, and what nothing shows."""
    by_cause: dict[str, list[Verdict]] = {}
    by_operator: dict[str, list[Verdict]] = {}
    for verdict in kills.verdicts:
        by_cause.setdefault(verdict.cause, []).append(verdict)
        by_operator.setdefault(verdict.operator, []).append(verdict)
    causes = {group.cause: group for group in found.causes}
    operators = {group.operator or "": group for group in found.operators}
    told = ("runs", "contract fired", "nothing moved", "seen")
    lines = [
        f"{found.runs} faulty runs of the corpus, each beside its clean twin from the fault on; "
        f"{found.healthy} healthy changes say what is no fault. An effect (↑ ↓, ↕ where runs "
        "differ) is the median difference in units of the twin's own variation from frame to "
        "frame. A metric is named where it moves, in more than half of the runs, further than in "
        "95 % of the healthy changes; *new* and *gone*: measured in only one of the two runs. "
        "*Contract fired*: one that the twin's run does not fire, comparisons with peers or "
        "convention aside, which healthy models may miss (in "
        f"{found.healthy_fired} of the healthy changes). *Nothing moved*: no metric moved "
        f"{found.threshold:g} times as far, the most that 95 % of the healthy changes move any, "
        "and none is new or gone that stays in them. *Seen*: a contract fired or a metric moved "
        f"(the same rules take {found.healthy_seen} healthy changes for faults). *Hurts*: the "
        "families on which the validation loss is worse, by the kill test below; latent: on none.",
        "",
        *_table(
            ("root cause", *told, "hurts", "what moves most", "not seen in"),
            (
                _row(
                    key,
                    *_told(group),
                    _hurts(by_cause.get(key, ())),
                    "; ".join(map(_metric, group.metrics)),
                    _unseen(group.families),
                )
                for key in ROOT_CAUSE_KEYS
                if (group := causes.get(key)) is not None
            ),
        ),
        "",
        "### Operator by operator",
        "",
        "Severities with runs seen of runs made.",
        "",
        *_table(
            ("operator", *told, "hurts", "severities", "what moves most", "not seen in"),
            (
                _row(
                    f"**{code}**" if operator.beyond else code,
                    *_told(group),
                    _hurts(by_operator.get(code, ())),
                    _severities(group),
                    "; ".join(map(_metric, group.metrics[:2])),
                    _unseen(group.families),
                )
                for code, operator in OPERATORS.items()
                if (group := operators.get(code)) is not None
            ),
        ),
        "",
        "### Unobservable",
        "",
        "Neither a contract nor a metric tells, in more than half of the runs:",
        "",
    ]
    hidden = [*unobservable(found.causes), *unobservable(found.operators)]
    lines += [
        f"- {_name(group)}: {group.runs - group.seen} of {group.runs} runs show nothing."
        for group in hidden
    ] or ["- none."]
    without = tuple(key for key in ROOT_CAUSE_KEYS if key not in causes)
    if without:
        lines += ["", f"Not in this corpus: {', '.join(without)}."]
    return "\n".join(lines)


def mutation_scores(kills: Kills) -> str:
    """The kill test's table in Markdown: category by category, beside what was published."""
    kinds = tuple(PUBLISHED)

    def cells(verdicts: list[Verdict]) -> list[str]:
        found = []
        for kind in kinds:
            killed, tested = score(v for v in verdicts if v.kind == kind)
            found.append(f"{killed} of {tested} ({_share(killed, tested)})" if tested else "")
        return found

    rows = [
        _row(
            category,
            *cells([v for v in kills.verdicts if v.cause.partition("/")[0] == category]),
        )
        for category in CATEGORY_NAMES
    ]
    rows += [
        _row("**all**", *cells(list(kills.verdicts))),
        _row(
            "DEFault++ (2026), its own operators",
            *(f"{100 * PUBLISHED[kind]:.1f} %" for kind in kinds),
        ),
    ]
    return "\n".join(
        [
            f"{kills.design[0].upper()}{kills.design[1:]}. Killed: the validation loss is worse "
            "by a one-sided exact sign-flip test over the seeds, p < 0.05 (with five seeds: worse "
            "on every one), or the training raises. The others are latent. Published figures are "
            "those of the manuscript's own benchmark; it gives none by category.",
            "",
            *_table(("category", *(f"{kind}: killed of tested" for kind in kinds)), rows),
        ]
    )
