"""Follow a live run without a screen: one line for each change of the connection, the training's
state or the diagnosis, and for each event. Ends with the run.

Exit status as diagnose: 0 healthy, 1 faulty, 2 cannot say. With --json each line is an object with
a "kind": run, link, state, event, diagnosis, note or end."""

from __future__ import annotations

import argparse

HELP = "follow a live run as lines of text or JSON"


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of ``watch``."""
    parser.add_argument(
        "target", nargs="?", metavar="TARGET", help="as for attach; default: the only run"
    )
    parser.add_argument("--remote-python", metavar="PATH", help="as for attach")
    parser.add_argument("--json", action="store_true", help="one JSON object per line")


def run(options: argparse.Namespace) -> int:
    """Follow the target until it ends or is lost."""
    from monitor import exit_status
    from monitor.targets import open_target
    from monitor.watching import Watcher, as_json, as_text

    source = open_target(options.target, options.remote_python)
    watcher = Watcher()
    render = as_json if options.json else as_text
    try:
        while not watcher.over:
            for change in watcher.take(source.read(timeout=0.5)):
                print(render(change), flush=True)
    finally:
        source.close()
    return exit_status.of_verdict(watcher.diagnosis)
