"""Start a small real training in its own process, let it train healthy, then inject a fault.

The model is a transformer of a few layers, trained on the Python standard library's own text; the
fault comes after 60 healthy steps (a third of a shorter demo; faults of initialisation: from the
first step). Every step is sampled. Nothing is downloaded. Leaving the screen ends the training."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from monitor.commands.attach import configure_screen, require_terminal, show

if TYPE_CHECKING:
    from diagnoser.diagnosis import Diagnosis
    from monitor.demo import DemoSource
    from monitor.sources.source import Batch
    from monitor.stream_diagnosis import StreamDiagnosis

HELP = "watch a fault being found in a small real training"

EXAMPLES = """\
examples:
  defaultpp-monitor demo
  defaultpp-monitor demo --fault residual/skip_connection --model gpt2
  defaultpp-monitor demo --fault none                    a healthy run
  defaultpp-monitor demo --headless --json               for a script

exit status with --headless: 0 healthy, 1 faulty, 2 cannot say, 3 no training, 64 wrong usage"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of ``demo``."""
    parser.epilog = EXAMPLES
    parser.add_argument(
        "--fault",
        metavar="CATEGORY/ROOT_CAUSE",
        default="masking/mask_application",
        help="which fault, or none (default: masking/mask_application)",
    )
    parser.add_argument("--model", choices=("bert", "gpt2", "llama"), default="bert")
    parser.add_argument("--steps", type=int, default=180, metavar="N", help="in all (180)")
    parser.add_argument(
        "--seed", type=int, default=1_000_000, metavar="N", help="from 1000000 on (1000000)"
    )
    parser.add_argument("--trace", type=Path, metavar="PATH", help="where to record the run")
    parser.add_argument("--headless", action="store_true", help="no screen; print the verdict")
    parser.add_argument("--json", action="store_true", help="with --headless: as one JSON object")
    configure_screen(parser)


def run(options: argparse.Namespace) -> int:
    """Run the demo on the screen, or headless."""
    from monitor.demo import PACE_SECONDS, Demo, DemoSource, DemoTraining
    from monitor.usage import UsageError

    if options.json and not options.headless:
        raise UsageError("--json goes with --headless")
    demo = Demo(
        fault=options.fault,
        model=options.model,
        steps=options.steps,
        seed=options.seed,
        trace=options.trace,
        pace=0.0 if options.headless else PACE_SECONDS,
    )
    demo.check()
    if not options.headless:
        require_terminal()
    with DemoTraining(demo) as training:
        if options.headless:
            return _headless(DemoSource(training), demo.steps, options.json)
        return show(DemoSource(training), options)


def _headless(source: DemoSource, steps: int, json: bool) -> int:
    from diagnoser.diagnosis import to_json
    from monitor import exit_status
    from monitor.diagnosis_text import full_text
    from monitor.sources.source import SourceError
    from monitor.stream_diagnosis import StreamDiagnosis

    try:
        diagnosis, last = _follow(source, StreamDiagnosis(), steps)
    finally:
        source.close()
    if diagnosis is None:
        raise SourceError(last.text or "the training ended before its model was seen")
    if last.link == "lost":
        print(f"defaultpp-monitor: {last.text}", file=sys.stderr)
    print(to_json(diagnosis) if json else full_text(diagnosis))
    return exit_status.of_verdict(diagnosis)


def _follow(
    source: DemoSource, stream: StreamDiagnosis, steps: int
) -> tuple[Diagnosis | None, Batch]:
    """Take the run in to its end, a progress bar on stderr; the last batch that had a text."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from monitor.sources.source import Batch
    from probe.schema import Event, Frame

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total} steps"),
        TimeElapsedColumn(),
    )
    console = Console(stderr=True)
    last = Batch()
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("starting", total=steps)
        while True:
            batch = source.read()
            last = batch if batch.text else last
            for record in batch.records:
                stream.take(record)
                if isinstance(record, Frame):
                    progress.update(task, completed=record.step + 1, description="training")
                elif isinstance(record, Event) and record.kind == "fault":
                    progress.console.print(f"step {record.step}: {record.text}", markup=False)
            if batch.link in ("ended", "lost") and not batch.records:
                return stream.current, last
