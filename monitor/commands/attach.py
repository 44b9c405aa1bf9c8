"""Watch a live run on the screen.

TARGET is a run's name or id as list shows it, the address given to probe.attach (ipc:///path,
tcp://host:port), or ssh://[user@]host[:port][/run], which uses your own ssh: one login, no open
port. Leaving the screen never stops the training; a training paused from here goes on."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from msgspec.structs import replace

if TYPE_CHECKING:
    from monitor.sources.source import Source

HELP = "watch a live run (name, address or ssh://)"


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of ``attach``."""
    parser.add_argument("target", nargs="?", metavar="TARGET", help="default: the only run")
    parser.add_argument(
        "--remote-python",
        metavar="PATH",
        help="with ssh://: the Python there that has defaultpp-monitor (default: the run's own)",
    )
    configure_screen(parser)


def configure_screen(parser: argparse.ArgumentParser) -> None:
    """Options of every command that opens the screen. Unset ones leave an earlier value alone."""
    screen = parser.add_argument_group("screen")
    unset = argparse.SUPPRESS
    screen.add_argument(
        "--ascii", action="store_true", default=unset, help="draw with plain ASCII characters"
    )
    screen.add_argument(
        "--fps", type=_fps, default=unset, metavar="N", help="redraws per second, 0.5 to 30 (4)"
    )
    screen.add_argument(
        "--theme",
        default=unset,
        metavar="NAME",
        help="monitor-dark, monitor-light, monitor-colour-blind, or another that the palette "
        "lists (default: dark or light as the terminal is)",
    )


def run(options: argparse.Namespace) -> int:
    """Open the target and show it."""
    from monitor.targets import open_target

    source = open_target(options.target, options.remote_python)
    require_terminal(source)
    return show(source, options)


def show(source: Source, options: argparse.Namespace) -> int:
    """Run the screen over a source until the person leaves; closes the source."""
    try:
        from monitor.settings import load
        from monitor.terminal_background import theme_of_terminal
        from monitor.undisturbed import uncollected

        settings = load()
        theme = getattr(options, "theme", None) or settings.theme
        # Asked before anything else reads from the terminal.
        theme = theme or theme_of_terminal()
        with uncollected():
            from monitor.app import MonitorApp
            from monitor.remembered import remember

        # What was typed goes before what the file says.
        settings = replace(
            settings,
            theme=theme,
            ascii=getattr(options, "ascii", settings.ascii),
            fps=getattr(options, "fps", settings.fps),
        )
        app = MonitorApp(source, settings=settings, remember=remember)
        app.run()
        return app.return_code or 0
    finally:
        source.close()


def require_terminal(source: Source | None = None) -> None:
    """Raises UsageError where there is no terminal to draw on, and closes the source then."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        if source is not None:
            source.close()
        from monitor.usage import UsageError

        raise UsageError(
            "the screen needs a terminal; without one use defaultpp-monitor watch, diagnose or "
            "demo --headless"
        )


def _fps(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.5 <= value <= 30:
        raise argparse.ArgumentTypeError(f"{text} is not a number from 0.5 to 30")
    return value
