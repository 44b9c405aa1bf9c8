"""``python -m diagnoser.corpus``: plan, build, describe, pack, observe, kill, report."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from diagnoser.corpus import CorpusError, evidence
from diagnoser.manifest import CorpusError as UnusableCorpus

if TYPE_CHECKING:
    from diagnoser.corpus.build import Tally


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a number above 0")
    return number


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m diagnoser.corpus", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    build = commands.add_parser("build", help="run the plan; goes on where it stopped")
    build.add_argument("--out", type=Path, required=True, metavar="DIR")
    build.add_argument("--minutes", type=float, default=40.0, help="stop after (default 40)")
    build.add_argument("--jobs", type=_positive, default=2, help="processes (default 2)")
    build.add_argument("--seed", type=int, default=0, help="of the plan (default 0)")
    build.add_argument("--final", action="store_true", help="the final hold-out's plan")
    build.add_argument("--limit", type=_positive, help="stop at this many runs")
    build.add_argument(
        "--after",
        type=Path,
        metavar="TABLE",
        help="go on in the plan after the runs of a feature table, whose traces are gone",
    )
    build.add_argument("--retry", action="store_true", help="run again what crashed")
    plan = commands.add_parser("plan", help="print the first scenarios of a plan, run nothing")
    plan.add_argument("--seed", type=int, default=0, help="of the plan (default 0)")
    plan.add_argument("--final", action="store_true", help="the final hold-out's plan")
    plan.add_argument("--limit", type=_positive, default=40, help="scenarios (default 40)")
    describe = commands.add_parser("describe", help="count what was built")
    describe.add_argument("folder", type=Path, metavar="DIR")
    pack = commands.add_parser("pack", help="features of the runs' samples as a small table")
    pack.add_argument("folder", type=Path, metavar="DIR")
    pack.add_argument("--out", type=Path, required=True, metavar="DIR", help="its folder")
    pack.add_argument(
        "--bits", type=_positive, default=10, help="of the mantissa (default 10: all)"
    )
    pack.add_argument("--add", action="store_true", help="to the table that is there")
    pack.add_argument("--workers", type=_positive, default=2, help="processes (default 2)")
    evidence.add(commands, _positive)
    return parser.parse_args(arguments)


MOST_MEGABYTES = 40
"""What a table kept beside the code may weigh."""


def _build(options: argparse.Namespace) -> None:
    from diagnoser.corpus.build import build

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    begun = time.monotonic()
    with Progress(*columns, console=console) as progress:
        total = options.limit or options.minutes * 60
        bar = progress.add_task("starting", total=total)

        def report(tally: Tally, _: str) -> None:
            done = tally.runs if options.limit else time.monotonic() - begun
            progress.update(bar, completed=done, description=_sentence(tally))

        tally = build(
            options.out,
            seed=options.seed,
            final=options.final,
            minutes=options.minutes,
            jobs=options.jobs,
            limit=options.limit,
            after=_last_scenario(options.after),
            retry=options.retry,
            report=report,
        )
    console.print(f"{_sentence(tally)}, in {options.out}")


def _last_scenario(folder: Path | None) -> int:
    """Of a feature table's runs; -1 without one."""
    if folder is None:
        return -1
    from diagnoser import table

    return max(run.scenario for run in table.read(folder).runs)


def _sentence(tally: Tally) -> str:
    return (
        f"{tally.clean} clean, {tally.faulty} faulty, {tally.discarded} discarded, "
        f"{tally.failed} failed"
    )


def _plan(options: argparse.Namespace) -> None:
    from diagnoser.corpus.plan import final_scenarios, scenarios

    plan = final_scenarios(options.seed) if options.final else scenarios(options.seed)
    for scenario in islice(plan, options.limit):
        size = scenario.recipe.size
        runs = [
            branch.change or (branch.fault.operator if branch.fault else "clean")
            for branch in scenario.branches
        ]
        print(
            f"{scenario.number:5d} {scenario.group:28s} {size.layers:2d} x {size.width:3d}  "
            f"every {scenario.interval:3d}, {scenario.steps:4d} steps  {' '.join(runs)}"
        )


def _describe(options: argparse.Namespace) -> None:
    from diagnoser.corpus.manifest import Ledger, load

    entries = load(options.folder)
    audits = Ledger(options.folder).audits
    families = sorted({entry.family for entry in entries})
    rows: Counter[tuple[str, str, str]] = Counter()
    for entry in entries:
        rows[entry.category or "clean", entry.root_cause or "", entry.family] += 1
    console = Console()
    table = Table("category", "root cause", *families, "all", "not kept")
    for category, cause in sorted({row[:2] for row in rows}):
        counts = [rows[category, cause, family] for family in families]
        left_out = sum(
            (audit.category or "clean", audit.root_cause or "") == (category, cause)
            for audit in audits
        )
        table.add_row(category, cause, *map(str, [*counts, sum(counts), left_out]))
    console.print(table)
    pairs = Table("model-task pair", "clean", "faulty")
    for group in sorted({entry.group for entry in entries}):
        kinds = Counter(entry.kind for entry in entries if entry.group == group)
        pairs.add_row(group, str(kinds["clean"]), str(kinds["faulty"]))
    console.print(pairs)
    events = Counter((audit.event, audit.operator or "clean") for audit in audits)
    for (event, operator), count in sorted(events.items()):
        console.print(f"{event} {operator}: {count}")


def _pack(options: argparse.Namespace) -> None:
    from diagnoser import manifest, table
    from diagnoser.extract import extract_all

    extracted = extract_all(manifest.read(options.folder), options.workers)
    index = table.pack(
        extracted,
        options.out,
        options.bits,
        lambda shard: print(f"{shard.file}: {shard.runs} runs, {shard.bytes / 1e6:.1f} MB"),
        add=options.add,
    )
    size = sum(shard.bytes for shard in index.shards) / 1e6
    samples = sum(shard.samples for shard in index.shards)
    print(f"{len(extracted.runs)} runs, {samples} samples, {size:.1f} MB in {options.out}")
    if size > MOST_MEGABYTES:
        print(f"more than {MOST_MEGABYTES} MB: fewer --bits make it smaller", file=sys.stderr)


COMMANDS = {
    "pack": _pack,
    "build": _build,
    "plan": _plan,
    "describe": _describe,
    **evidence.COMMANDS,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; the exit status."""
    options = _arguments(arguments)
    try:
        COMMANDS[options.command](options)
    except (CorpusError, UnusableCorpus) as error:
        print(error, file=sys.stderr)
        return 3
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
