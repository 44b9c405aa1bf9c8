"""Show a saved run on the screen, with its diagnosis rolling along.

Play and pause, change the speed, step by frames and jump from the screen. A trace that is still
being written is followed."""

from __future__ import annotations

import argparse
from pathlib import Path

from monitor.commands.attach import configure_screen, require_terminal, show

HELP = "show a saved run"


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of ``replay``."""
    parser.add_argument("trace", type=Path, metavar="TRACE", help="file written by the probe")
    parser.add_argument(
        "--speed", type=_speed, default=1.0, metavar="X", help="times the recorded speed (1)"
    )
    parser.add_argument("--at", type=int, metavar="STEP", help="begin at this step")
    parser.add_argument("--paused", action="store_true", help="wait for play")
    configure_screen(parser)


def run(options: argparse.Namespace) -> int:
    """Open the trace and show it."""
    from monitor.sources.replay import ReplaySource

    source = ReplaySource(options.trace, speed=options.speed, playing=not options.paused)
    require_terminal(source)
    if options.at is not None or options.paused:
        # Paused at its beginning it shows the model and the first frame, not an empty screen.
        source.jump(options.at or 0)
    return show(source, options)


def _speed(text: str) -> float:
    try:
        value = float(text.rstrip("x"))
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a speed such as 0.5, 1 or 20")
    return value
