"""The command line. Nothing heavy is imported here: each command loads what it needs."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import NoReturn

from monitor import exit_status
from monitor.commands import attach, demo, diagnose, doctor, export, listing, replay, report, watch

DEBUG_VARIABLE = "DEFAULTPP_DEBUG"

COMMANDS = {
    "attach": attach,
    "replay": replay,
    "demo": demo,
    "list": listing,
    "diagnose": diagnose,
    "watch": watch,
    "export": export,
    "report": report,
    "doctor": doctor,
}

DESCRIPTION = """\
Watch a transformer train, component by component, and be told what is wrong with it.

Put one line into the training script:

    import probe; probe.attach(model, optimizer)

and type defaultpp-monitor in a second terminal. Without a command it attaches to the run of this
user, or lets you pick where there are several."""

EPILOG = """\
examples:
  defaultpp-monitor                          the run on this machine
  defaultpp-monitor attach ssh://me@gpu7     the run on another one, through your own ssh
  defaultpp-monitor replay run.trace         a saved run
  defaultpp-monitor demo                     see a fault found, without a training of your own
  defaultpp-monitor diagnose run.trace       the verdict, for a script

exit status of diagnose, watch and demo --headless:
  0 healthy   1 faulty   2 cannot say   3 unreadable input   64 wrong usage
Set DEFAULTPP_DEBUG=1 to see where an internal error came from."""


class Parser(argparse.ArgumentParser):
    """argparse, but wrong usage is status 64: 2 means that a diagnosis could not be made."""

    def error(self, message: str) -> NoReturn:
        self.exit(exit_status.USAGE, f"{self.prog}: {message} (see {self.prog} --help)\n")


def parser() -> Parser:
    """The whole command line."""
    formatter = argparse.RawDescriptionHelpFormatter
    top = Parser(
        prog="defaultpp-monitor",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=formatter,
    )
    top.add_argument("--version", action="store_true", help="print the version and stop")
    attach.configure_screen(top)
    commands = top.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    for name, module in COMMANDS.items():
        sub = commands.add_parser(
            name, help=module.HELP, description=module.__doc__, formatter_class=formatter
        )
        module.configure(sub)
        sub.set_defaults(run=module.run)
    top.set_defaults(run=attach.run, target=None, remote_python=None)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of the console script; returns the exit status. No traceback leaves it."""
    options = parser().parse_args(arguments)
    if options.version:
        from importlib.metadata import version

        print(f"defaultpp-monitor {version('defaultpp-monitor')}")
        return 0
    try:
        status: int = options.run(options)
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        return exit_status.INTERRUPTED
    except BrokenPipeError:
        # A reader such as head went away. Python would complain again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return exit_status.INTERRUPTED
    except Exception as error:
        return _explain(error)


def entry() -> NoReturn:
    """The console script: :func:`main`, and out.

    Everything of ours is closed by then. Taking the interpreter apart takes seconds where torch is
    loaded, or is being loaded by a thread, and it aborts where a thread computes with it.
    """
    status = main()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):
            stream.flush()
    os._exit(status)


def _explain(error: Exception) -> int:
    """Print one line; the exit status says whether the input or the program is at fault."""
    if os.environ.get(DEBUG_VARIABLE):
        import traceback

        traceback.print_exception(error)
    expected = _expected_errors()
    if isinstance(error, expected):
        print(f"defaultpp-monitor: {error}", file=sys.stderr)
        from monitor.usage import UsageError

        return exit_status.USAGE if isinstance(error, UsageError) else exit_status.UNREADABLE
    text = " ".join((str(error) or "no message").split())[:500]
    print(
        f"defaultpp-monitor: internal error: {type(error).__name__}: {text} "
        f"({DEBUG_VARIABLE}=1 shows where)",
        file=sys.stderr,
    )
    return exit_status.INTERNAL


def _expected_errors() -> tuple[type[Exception], ...]:
    from monitor.sources.source import SourceError
    from monitor.usage import UsageError
    from probe.registry import DirectoryError, RegistryError
    from probe.trace import TraceError

    errors: tuple[type[Exception], ...] = (
        SourceError,
        UsageError,
        TraceError,
        RegistryError,
        DirectoryError,
    )
    # Loaded only where a diagnosis was tried; importing it here would cost seconds.
    engine = sys.modules.get("diagnoser.engine")
    return (*errors, engine.EngineError) if engine is not None else errors


if __name__ == "__main__":
    entry()
