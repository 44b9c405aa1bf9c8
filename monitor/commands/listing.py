"""List the live runs of this user, newest first."""

from __future__ import annotations

import argparse
import sys

HELP = "list the live runs"


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of ``list``."""
    parser.add_argument("--json", action="store_true", help="a JSON array, keys not included")


def run(options: argparse.Namespace) -> int:
    """Print the runs."""
    from monitor.targets import describe, first_ranks

    entries = first_ranks()
    if options.json:
        import msgspec

        shown = []
        for entry in entries:
            fields = msgspec.to_builtins(entry)
            del fields["key"]
            shown.append(fields)
        print(msgspec.json.format(msgspec.json.encode(shown)).decode())
        return 0
    for entry in entries:
        print(describe(entry))
        if entry.trace:
            print(f"    trace {entry.trace}")
    if not entries:
        print("No live run. Add probe.attach(model, optimizer) to a training.", file=sys.stderr)
    return 0
