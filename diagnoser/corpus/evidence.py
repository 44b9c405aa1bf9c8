"""The commands that tell what a corpus is worth: observe, kill, report."""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from diagnoser import table
from diagnoser.corpus.manifest import MANIFEST, Audit, Entry, Ledger, load

UNREAD_TOLD = 10


def add(commands: Any, positive: Callable[[str], int]) -> None:
    """Adds the commands' arguments to those of ``python -m diagnoser.corpus``."""
    observe = commands.add_parser("observe", help="which metrics each fault moves, and how far")
    observe.add_argument("folder", type=Path, metavar="DIR")
    observe.add_argument("--kept", type=Path, metavar="FILE", help="default DIR/observed.jsonl")
    kill = commands.add_parser("kill", help="train on matched seeds: which faults hurt")
    kill.add_argument("folder", type=Path, metavar="DIR", help="where results are kept")
    kill.add_argument("--minutes", type=float, default=25.0, help="stop after (default 25)")
    kill.add_argument("--jobs", type=positive, default=2, help="processes (default 2)")
    kill.add_argument("--only", nargs="+", default=(), metavar="OPERATOR", help="these faults")
    report = commands.add_parser("report", help="counts of what is held and what was left out")
    report.add_argument("folder", type=Path, metavar="DIR", help="a corpus, or its feature table")
    for command in (observe, kill, report):
        command.add_argument("--write", action="store_true", help="keep it beside the code")


@contextmanager
def _bar(title: str) -> Iterator[Callable[[int, int], None]]:
    columns = (TextColumn(title), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        bar = progress.add_task(title)
        yield lambda done, of: progress.update(bar, completed=done, total=of)


def observe(options: argparse.Namespace) -> None:
    """What the faults of a corpus move, as tables; kept with ``--write``."""
    from diagnoser.corpus.observe import observe_corpus
    from diagnoser.faults import observed, readme

    with _bar("scenarios") as report:
        found, unread = observe_corpus(options.folder, options.kept, report)
    for run, reason in unread[:UNREAD_TOLD]:
        print(f"{run}: {reason}", file=sys.stderr)
    if len(unread) > UNREAD_TOLD:
        print(f"and {len(unread) - UNREAD_TOLD} more runs that say nothing", file=sys.stderr)
    if options.write:
        observed.write(observed.OBSERVABILITY, found)
        readme.write()
    else:
        print(observed.observability(found, observed.read_kills()))


def kill(options: argparse.Namespace) -> None:
    """Runs the kill test, or goes on with it; kept with ``--write``."""
    from diagnoser.corpus.kill import kill_test
    from diagnoser.faults import observed, readme

    with _bar("trainings") as report:
        found = kill_test(
            options.folder,
            minutes=options.minutes,
            jobs=options.jobs,
            only=tuple(options.only),
            report=report,
        )
    if options.write:
        observed.write(observed.KILLS, found)
        readme.write()
    else:
        print(observed.mutation_scores(found))
        for verdict in found.verdicts:
            fate = "killed" if verdict.killed else "latent"
            print(
                f"{verdict.operator} {verdict.cause} on {verdict.family}: {fate}, "
                f"{verdict.validation_change:+.3f} nats, p {verdict.validation_p:.3f}"
            )


def report(options: argparse.Namespace) -> None:
    """What a corpus holds; kept as REPORT.md with ``--write``."""
    from diagnoser.corpus.report import FILE
    from diagnoser.corpus.report import report as tell
    from diagnoser.faults.observed import read_kills

    entries, audits, checksum = _held(options.folder)
    text = tell(entries, audits, read_kills(), checksum)
    if options.write:
        FILE.write_text(text, encoding="utf-8")
    else:
        print(text, end="")


def _held(folder: Path) -> tuple[list[Entry], list[Audit], str]:
    """What a corpus, or its feature table, holds, what it left out, and its checksum."""
    if table.is_table(folder):
        packed = table.read(folder)
        entries = [msgspec.json.decode(line, type=Entry) for line in packed.lines]
        audits = [msgspec.json.decode(line, type=Audit) for line in packed.audits]
        return entries, audits, packed.checksum
    entries = load(folder)
    checksum = hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()[:16]
    return entries, Ledger(folder).audits, checksum


COMMANDS = {"observe": observe, "kill": kill, "report": report}
