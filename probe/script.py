"""Runs a training script that knows nothing of the probe, as ``python train.py`` would.

``sys.argv``, ``sys.path``, ``__main__``, exit status and tracebacks are those of the plain run.
The probe attaches at the first optimizer step (:mod:`probe.finding`). torch is not imported before
the script does so: what it sets first (threads, devices) must still count.
"""

from __future__ import annotations

import argparse
import builtins
import importlib.abc
import importlib.machinery
import importlib.util
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import CodeType, ModuleType, TracebackType
from typing import Any, NoReturn

NOT_FOUND = 2
"""Python's own exit status for a script that cannot be opened."""


def main() -> NoReturn:
    """The command line. Does not return where the script ends by an exception or ``sys.exit``."""
    options, script, arguments = _read(sys.argv[1:])
    path = Path(script)
    if path.is_dir():
        path = path / "__main__.py"
    try:
        source = path.read_bytes()
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        print(f"python -m probe: can't open file {script!r}: {reason}", file=sys.stderr)
        raise SystemExit(NOT_FOUND) from None
    _when_imported("torch.optim.optimizer", lambda: _watch(options))
    sys.argv = [script, *arguments]
    if not getattr(sys.flags, "safe_path", False):
        sys.path[0] = str(path.resolve().parent)
    _run(source, script)
    raise SystemExit(0)


def _read(words: Sequence[str]) -> tuple[dict[str, Any], str, list[str]]:
    """(options of attach, the script, its own arguments)."""
    parser = argparse.ArgumentParser(
        prog="python -m probe",
        description="Run a training script, watched: the probe attaches at its first optimizer "
        "step. Options come before the script; everything after it is the script's.",
    )
    parser.add_argument("--run", metavar="NAME", help="a name for the monitor")
    parser.add_argument("--trace", metavar="FILE", help="file to record to; 'none': no recording")
    parser.add_argument("--endpoint", help="where to listen; 'none': nowhere")
    parser.add_argument("--every", type=_steps, help="sample each so many steps")
    parser.add_argument(
        "--budget", type=float, help="share of training time the probe may take (0.02)"
    )
    parser.add_argument("script", metavar="SCRIPT", help="the Python file to run")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, metavar="...", help="its arguments")
    given = vars(parser.parse_args(words))
    script, arguments = given.pop("script"), given.pop("arguments")
    options = {name: value for name, value in given.items() if value is not None}
    for name in ("trace", "endpoint"):
        if options.get(name) == "none":
            options[name] = False
    return options, script, arguments


def _steps(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of steps >= 1")
    return int(text)


def _watch(options: Mapping[str, Any]) -> None:
    from probe.finding import attach_at_first_step

    attach_at_first_step(options)


def _run(source: bytes, script: str) -> None:
    """Execute in the real ``__main__``, where spawned workers and pickles look for it."""
    script = os.path.abspath(script)
    names = vars(sys.modules["__main__"])
    names.clear()
    names.update(
        __name__="__main__",
        __file__=script,
        __builtins__=builtins,
        __doc__=None,
        __loader__=importlib.machinery.SourceFileLoader("__main__", script),
        __package__=None,
        __spec__=None,
        __cached__=None,
        __annotations__={},
    )
    try:
        code: CodeType = compile(source, script, "exec", dont_inherit=True)
        exec(code, names)
    except SystemExit:
        raise
    except BaseException:
        _show_only(script)
        raise


def _show_only(script: str) -> None:
    """The traceback that is about to be printed begins with the script, not with us."""
    shown = sys.excepthook

    def hook(
        kind: type[BaseException], error: BaseException, traceback: TracebackType | None
    ) -> None:
        while traceback is not None and traceback.tb_frame.f_code.co_filename != script:
            traceback = traceback.tb_next
        error.__traceback__ = traceback
        shown(kind, error, traceback)

    sys.excepthook = hook


def _when_imported(name: str, call: Callable[[], None]) -> None:
    """Call as soon as the module has been imported, or now if it is there."""
    if name in sys.modules:
        call()
    else:
        sys.meta_path.insert(0, _Waiting(name, call))


class _Waiting(importlib.abc.MetaPathFinder):
    """Stands before the other finders until the module it waits for is looked for."""

    def __init__(self, name: str, call: Callable[[], None]) -> None:
        self._name, self._call = name, call

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != self._name:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        loader: Any = spec.loader if spec is not None else None
        if loader is not None:
            execute, call = loader.exec_module, self._call

            def exec_module(module: ModuleType) -> None:
                execute(module)
                call()

            loader.exec_module = exec_module
        return spec
