"""What a corpus holds and what it left out, as Markdown: counts from its manifest and its audit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from diagnoser.corpus import FIRST_FINAL_SEED
from diagnoser.corpus.manifest import Audit, Entry
from diagnoser.faults.observed import mutation_scores
from diagnoser.kill_test import Kills
from diagnoser.taxonomy import CATEGORY_NAMES, ROOT_CAUSE_KEYS

FILE = Path(__file__).parent / "REPORT.md"

REASONS_TOLD = 3
"""Different reasons told of a kind of audit and operator."""

KINDS = ("clean", "change", "faulty")
EVENTS = ("discarded", "unfit", "crashed", "lost")


def kind_of(entry: Entry) -> str:
    """``clean``: as the recipe says, ``change``: with a healthy change on the way, ``faulty``."""
    return "change" if entry.kind == "clean" and entry.change else entry.kind


def _cause(line: Entry | Audit) -> str:
    return f"{line.category}/{line.root_cause}"


def _table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    lines = [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    return lines + [f"| {' | '.join(str(cell) for cell in row)} |" for row in rows]


def _by_kind(title: str, entries: Sequence[Entry], name: Callable[[Entry], Any]) -> list[str]:
    """Runs by what ``name`` gives, a column per kind."""
    counts: Counter[tuple[Any, str]] = Counter((name(e), kind_of(e)) for e in entries)
    keys = sorted({key for key, _ in counts})
    return _table((title, *KINDS), ((key, *(counts[key, kind] for kind in KINDS)) for key in keys))


def _causes(entries: Sequence[Entry], audits: Sequence[Audit]) -> list[str]:
    rows = []
    for key in ROOT_CAUSE_KEYS:
        made = [entry for entry in entries if entry.kind == "faulty" and _cause(entry) == key]
        left_out = Counter[str](audit.event for audit in audits if _cause(audit) == key)
        rows.append(
            (
                key,
                len(made),
                len({entry.operator for entry in made}),
                len({entry.family for entry in made}),
                len({entry.task for entry in made}),
                *(left_out[event] for event in EVENTS),
            )
        )
    return _table(("root cause", "runs", "operators", "families", "tasks", *EVENTS), rows)


def _categories(entries: Sequence[Entry]) -> list[str]:
    counts = Counter(entry.category for entry in entries if entry.kind == "faulty")
    return _table(("category", "runs"), ((name, counts[name]) for name in CATEGORY_NAMES))


def _spread(entries: Sequence[Entry]) -> list[str]:
    """How wide the trainings are drawn, one line per choice; scenarios counted once."""
    recipes = {entry.scenario: entry.recipe for entry in entries}.values()

    def counted(name: str, read: Callable[[dict[str, Any]], Any]) -> tuple[str, str]:
        found = Counter(str(read(recipe)) for recipe in recipes)
        return name, ", ".join(f"{value} {count}" for value, count in sorted(found.items()))

    def ranged(name: str, read: Callable[[dict[str, Any]], float]) -> tuple[str, str]:
        values = [read(recipe) for recipe in recipes]
        return name, f"{min(values):g} to {max(values):g}"

    rows = [
        ranged("layers", lambda recipe: recipe["size"]["layers"]),
        ranged("width", lambda recipe: recipe["size"]["width"]),
        ranged("heads", lambda recipe: recipe["size"]["heads"]),
        ranged("row length", lambda recipe: recipe["length"]),
        ranged("batch size", lambda recipe: recipe["batch_size"]),
        ranged("learning rate", lambda recipe: recipe["learning_rate"]),
        counted("optimizer", lambda recipe: recipe["optimizer"]),
        counted("schedule", lambda recipe: recipe["schedule"]),
        counted("rows", lambda recipe: recipe["padding"]),
        counted("dropout", lambda recipe: recipe["dropout"]),
        counted("arithmetic", lambda r: "bfloat16 autocast" if r["autocast"] else "float32"),
        counted("begun", lambda r: "fine-tuned" if r["pretrained"] else "at random"),
        counted("adapters", lambda recipe: "LoRA" if recipe["adapters"] else "none"),
    ]
    return _table(("of the scenarios", ""), rows)


def _left_out(audits: Sequence[Audit]) -> list[str]:
    groups: dict[tuple[str, str], list[Audit]] = {}
    for audit in audits:
        groups.setdefault((audit.event, audit.operator or "clean"), []).append(audit)
    rows = []
    for (event, operator), members in sorted(groups.items()):
        reasons = Counter(_last_line(audit.reason) for audit in members).most_common(REASONS_TOLD)
        told = "; ".join(f"{reason} ({count})" for reason, count in reasons)
        rows.append((event, operator, len(members), told))
    return _table(("", "operator", "runs", "reasons"), rows) if rows else ["Nothing."]


def _last_line(reason: str) -> str:
    """Of a traceback the error; without what would end a table's cell."""
    lines = reason.strip().splitlines() or [""]
    return lines[-1].replace("|", "/")


def report(entries: Sequence[Entry], audits: Sequence[Audit], kills: Kills, checksum: str) -> str:
    """The whole report. ``checksum``: of the corpus's manifest."""
    kinds = Counter(kind_of(entry) for entry in entries)
    scenarios = len({entry.scenario for entry in entries})
    at_start = sum(entry.start_step == 0 for entry in entries if entry.kind == "faulty")
    changes = Counter(entry.change for entry in entries if entry.change)
    final = sum(entry.seed >= FIRST_FINAL_SEED for entry in entries)
    lines = [
        "# What the corpus holds",
        "",
        "Written by `python -m diagnoser.corpus report DIR --write` from the manifest and the "
        f"audit of the corpus {checksum}.",
        "",
        f"{len(entries)} runs of {scenarios} trainings (scenarios): {kinds['clean']} as they are, "
        f"{kinds['change']} with a healthy change on the way, {kinds['faulty']} faulty "
        f"({at_start} of them from the first step). {len(audits)} runs were not kept. Runs of "
        f"the final hold-out (`holdout.py`) among them: {final}.",
        "",
        "## Faults",
        "",
        *_categories(entries),
        "",
        *_causes(entries, audits),
        "",
        "*discarded*: the trace is the clean run's, bit for bit; *unfit*: no severity differs from "
        "the clean model's own, the model lacks the part, or the training diverged without any "
        "fault; *crashed*: an exception; *lost*: the process died or hung.",
        "",
        "## Trainings",
        "",
        *_by_kind("family", entries, lambda entry: entry.family),
        "",
        *_by_kind("task", entries, lambda entry: entry.task),
        "",
        *_by_kind("steps between samples", entries, lambda entry: entry.interval),
        "",
        *_spread(entries),
        "",
        *_table(("healthy change", "runs"), sorted(changes.items())),
        "",
        "## Not kept",
        "",
        *_left_out(audits),
        "",
        "## Which faults hurt",
        "",
        mutation_scores(kills),
    ]
    return "\n".join(lines) + "\n"
