"""What ``doctor`` looks at. Every check is a function that yields findings and raises nothing."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

PACKAGES = (
    "defaultpp-monitor",
    "torch",
    "transformers",
    "torch_geometric",
    "textual",
    "pyzmq",
    "msgspec",
    "numpy",
)
TRAINERS = ("accelerate", "lightning", "pytorch-lightning", "peft", "trl")
"""Trainers that the probe is tested with; none is needed."""
LOW_DISK_BYTES = 1024**3


@dataclass(frozen=True)
class Finding:
    """One line: about what, what was found, and whether it matters."""

    level: Literal["ok", "note", "fail"]
    subject: str
    text: str

    @property
    def mark(self) -> str:
        return {"ok": "ok  ", "note": "note", "fail": "FAIL"}[self.level]


def findings() -> Iterator[Finding]:
    """All checks, one after the other."""
    for check in (versions, terminal, settings, directories, runs, ssh):
        yield from check()


def versions() -> Iterator[Finding]:
    """Python and the packages; reads their metadata, imports none of them."""
    yield Finding("ok", "python", f"{platform.python_version()} ({sys.executable})")
    for name in PACKAGES:
        try:
            yield Finding("ok", name, metadata.version(name))
        except metadata.PackageNotFoundError:
            yield Finding("fail", name, "not installed: run pip install defaultpp-monitor again")
    for name in TRAINERS:
        with contextlib.suppress(metadata.PackageNotFoundError):
            yield Finding("ok", name, metadata.version(name))


def terminal() -> Iterator[Finding]:
    """Size, colours and characters of the terminal."""
    if not sys.stdout.isatty():
        yield Finding("note", "terminal", "output is not a terminal: its abilities are not known")
        return
    size = shutil.get_terminal_size()
    level: Literal["ok", "note"] = "ok" if size.columns >= 80 and size.lines >= 24 else "note"
    yield Finding(
        level,
        "terminal",
        f"{os.environ.get('TERM', 'TERM not set')}, {size.columns}x{size.lines}"
        + ("" if level == "ok" else ": 80x24 is the least that shows everything"),
    )
    yield _colours()
    encoding = (sys.stdout.encoding or "").lower().replace("-", "")
    if encoding == "utf8":
        yield Finding("ok", "characters", "UTF-8")
    else:
        yield Finding(
            "note",
            "characters",
            f"{encoding or 'unknown'}, not UTF-8: try --ascii",
        )


def _colours() -> Finding:
    if os.environ.get("NO_COLOR"):
        return Finding("note", "colours", "none, because NO_COLOR is set")
    if os.environ.get("COLORTERM") in ("truecolor", "24bit"):
        return Finding("ok", "colours", "16 million")
    if "256" in os.environ.get("TERM", ""):
        inside = " (inside tmux: it may pass more with terminal-features RGB)"
        return Finding("ok", "colours", "256" + (inside if os.environ.get("TMUX") else ""))
    return Finding("note", "colours", "16 or unknown: shades will be coarse")


def directories() -> Iterator[Finding]:
    """The directories of sockets, runs and traces: there, private, with room."""
    from probe.directories import DirectoryError, runtime_dir, state_dir, traces_dir

    places: tuple[tuple[str, Callable[[], Path]], ...] = (
        ("sockets", runtime_dir),
        ("runs", state_dir),
        ("traces", traces_dir),
    )
    for subject, place in places:
        try:
            path = place()
        except DirectoryError as error:
            yield Finding("fail", subject, str(error))
            continue
        if subject == "traces":
            yield _room(path)
        else:
            yield Finding("ok", subject, str(path))


def _room(path: Path) -> Finding:
    traces = [entry.stat().st_size for entry in path.iterdir() if entry.is_file()]
    free = shutil.disk_usage(path).free
    text = f"{path}: {len(traces)} traces, {sum(traces) / 1e6:.0f} MB; {free / 1e9:.1f} GB are free"
    return Finding("ok" if free > LOW_DISK_BYTES else "note", "traces", text)


def runs() -> Iterator[Finding]:
    """The live runs that a monitor would find."""
    from monitor.targets import describe, first_ranks
    from probe.directories import DirectoryError

    try:
        entries = first_ranks()
    except DirectoryError:
        return  # told by the check of directories
    if not entries:
        yield Finding("note", "run", "none is live: probe.attach(model, optimizer) registers one")
    for entry in entries:
        yield Finding("ok", "run", describe(entry))


def settings() -> Iterator[Finding]:
    """The settings file: where it is, and every line that cannot be used as it stands."""
    from monitor.key_table import remapped
    from monitor.settings import load, settings_path

    path = settings_path()
    if path is None or not path.exists():
        text = f"no file at {path}" if path else "no file"
        yield Finding("ok", "settings", f"{text}: everything as it comes")
        return
    found = load(path)
    complaints = (*found.complaints, *remapped(found.keys)[1])
    for complaint in complaints:
        yield Finding("note", "settings", complaint)
    if not complaints:
        yield Finding("ok", "settings", str(path))


def ssh() -> Iterator[Finding]:
    """The client that ``attach ssh://`` starts."""
    found = shutil.which("ssh")
    if found:
        yield Finding("ok", "ssh", found)
    else:
        yield Finding("note", "ssh", "not installed: attach ssh://... needs it")
