"""Read a saved run and print the verdict that stands at its end.

Exit status: 0 healthy, 1 faulty, 2 cannot say, 3 unreadable input."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

HELP = "print the verdict on a saved run"


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of ``diagnose``."""
    parser.add_argument("trace", type=Path, metavar="TRACE", help="file written by the probe")
    parser.add_argument("--json", action="store_true", help="the diagnosis as one JSON object")


def run(options: argparse.Namespace) -> int:
    """Diagnose the trace; the exit status tells the verdict."""
    from diagnoser.diagnosis import to_json
    from monitor import exit_status
    from monitor.diagnosis_text import full_text
    from monitor.stream_diagnosis import diagnose_trace

    diagnosis, damaged = diagnose_trace(options.trace)
    if damaged:
        print(
            f"defaultpp-monitor: {options.trace}: {damaged} places in it cannot be read: the "
            "verdict is of the rest",
            file=sys.stderr,
        )
    print(to_json(diagnosis) if options.json else full_text(diagnosis))
    return exit_status.of_verdict(diagnosis)
