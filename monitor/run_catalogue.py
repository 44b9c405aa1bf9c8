"""Runs that could be watched: the live ones of this user, and the newest recorded ones."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from msgspec import Struct
from msgspec.structs import replace

from monitor.remembered import Remembered, remembered
from monitor.sources.source import Source, SourceError

if TYPE_CHECKING:
    from probe.registry import RunEntry

RECENT_TRACES = 30


class ListedRun(Struct, frozen=True):
    """A line of the list. ``entry`` for a live run, ``path`` for a trace."""

    kind: Literal["live", "trace"]
    name: str
    run: str
    detail: str
    age: float
    """Seconds since it started (live) or was written to last (trace)."""
    entry: RunEntry | None = None
    path: Path | None = None
    verdict: Remembered | None = None
    """What it was told to be when it was last watched."""


def discover(now: float | None = None) -> tuple[ListedRun, ...]:
    """Live runs first, then traces, each the newest first; what a live run is writing is not told
    once more as a trace. Raises SourceError."""
    from probe.directories import DirectoryError

    now = time.time() if now is None else now
    try:
        live = _live(now)
        written = {run.entry.trace for run in live if run.entry is not None}
        found = (*live, *(run for run in _traces(now) if str(run.path) not in written))
    except (DirectoryError, OSError) as error:
        raise SourceError(str(error)) from None
    known = remembered()
    return tuple(replace(run, verdict=known.get(run.run)) for run in found)


def _live(now: float) -> list[ListedRun]:
    from monitor.targets import first_ranks

    found = []
    for entry in first_ranks():
        place = f"pid {entry.pid}" if entry.here else f"pid {entry.pid} on {entry.host}"
        ranks = f", {entry.world_size} ranks" if entry.world_size > 1 else ""
        found.append(
            ListedRun(
                "live", entry.name, entry.run, f"{place}{ranks}", now - entry.created, entry=entry
            )
        )
    return found


def _traces(now: float) -> list[ListedRun]:
    from probe.directories import traces_dir

    files = []
    for path in traces_dir().glob("*.trace"):
        try:
            found = path.stat()
        except OSError:
            continue  # removed in this moment
        files.append((found.st_mtime, found.st_size, path))
    files.sort(key=lambda file: -file[0])
    return [_trace(now - written, size, path) for written, size, path in files[:RECENT_TRACES]]


def _trace(age: float, size: int, path: Path) -> ListedRun:
    from probe.schema import Header
    from probe.trace import TraceError, TraceReader

    name, model = path.stem, "unreadable"
    try:
        with TraceReader(path) as reader:
            header = next((r for r in reader.records(4) if isinstance(r, Header)), None)
        model = header.anatomy.model if header else "no model seen"
        name = header.name if header and header.name else name
    except TraceError:
        pass  # listed all the same: opening it says what is wrong with it
    return ListedRun("trace", name, path.stem, f"{model}, {_megabytes(size)}", age, path=path)


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.0f} kB"


def open_named(text: str) -> Source:
    """A source by what a person typed: an address, a run's name, or the path of a trace.

    The screen is up, so that ssh cannot ask for a password here. Raises SourceError and what
    :func:`monitor.targets.open_target` raises.
    """
    if text.startswith("ssh://"):
        from monitor.sources.ssh import open_ssh

        return open_ssh(text, batch=True)
    path = Path(text).expanduser()
    if path.is_file() or ("://" not in text and ("/" in text or path.suffix == ".trace")):
        return _at_its_end(path)
    from monitor.targets import open_target

    return open_target(text)


def open_listed(listed: ListedRun) -> Source:
    """A source of this run; a trace stands at its end, to be gone through from there.

    Raises SourceError.
    """
    if listed.entry is not None:
        from monitor.sources.live import open_entry

        return open_entry(listed.entry)
    assert listed.path is not None
    return _at_its_end(listed.path)


def _at_its_end(trace: Path) -> Source:
    from monitor.sources.replay import ReplaySource

    source = ReplaySource(trace, playing=False)
    source.jump(sys.maxsize)
    return source
