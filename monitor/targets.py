"""From what was typed after ``attach`` to an open source."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from monitor.formatting import ago
from monitor.sources.source import SourceError
from monitor.usage import UsageError

if TYPE_CHECKING:
    from monitor.sources.live import LiveSource
    from probe.registry import RunEntry

NO_RUN = """\
no run was found.

Put one line into the training script, after model and optimizer are made:

    import probe; probe.attach(model, optimizer)

start it, and type defaultpp-monitor again. To see how it looks first:

    defaultpp-monitor demo
"""


def open_target(target: str | None, remote_python: str | None = None) -> LiveSource:
    """The live run named by ``target``: a name, an id, an address, or None for the only one.

    Raises SourceError, RegistryError, DirectoryError or :class:`UsageError`.
    """
    from monitor.sources import live

    if target is None:
        return live.open_entry(pick(first_ranks(), interactive=_at_a_terminal()))
    if target.startswith("ssh://"):
        from monitor.sources.ssh import open_ssh

        return open_ssh(target, remote_python)
    if "://" in target:
        return live.open_endpoint(target)
    from probe.registry import RegistryError, find

    try:
        entry = find(target)
    except RegistryError:
        if Path(target).is_file():
            raise UsageError(
                f"{target} is a file: defaultpp-monitor replay {target} shows a saved run"
            ) from None
        raise
    return live.open_entry(entry)


def first_ranks() -> list[RunEntry]:
    """One entry for each live run, newest first: that of its lowest rank."""
    from probe.registry import list_runs

    entries: dict[str, RunEntry] = {}
    for entry in list_runs():
        held = entries.get(entry.run)
        if held is None or entry.rank < held.rank:
            entries[entry.run] = entry
    return list(entries.values())


def pick(
    entries: list[RunEntry], *, interactive: bool, ask: Callable[[str], str] = input
) -> RunEntry:
    """The only run, or the one that the person chooses by its number."""
    if not entries:
        raise SourceError(NO_RUN + _last_recorded())
    if len(entries) == 1:
        return entries[0]
    if not interactive:
        names = ", ".join(f"{entry.name} ({entry.run})" for entry in entries)
        raise UsageError(f"several runs are there, say which one to attach to: {names}")
    for number, entry in enumerate(entries, 1):
        print(f"{number:3}  {describe(entry)}", file=sys.stderr)
    while True:
        try:
            answer = ask(f"Which run? [1-{len(entries)}, Enter for 1] ").strip() or "1"
        except EOFError:
            raise UsageError("no run was chosen") from None
        if answer.isdecimal() and 1 <= int(answer) <= len(entries):
            return entries[int(answer) - 1]


def _last_recorded() -> str:
    """How to look at the newest recorded run; empty where there is none."""
    from probe.directories import DirectoryError, traces_dir

    try:
        found = {path: path.stat().st_mtime for path in traces_dir().glob("*.trace")}
    except (DirectoryError, OSError):
        return ""
    newest = max(found, key=lambda path: found[path], default=None)
    if newest is None:
        return ""
    return f"\n\nThe run recorded last:\n\n    defaultpp-monitor replay {shlex.quote(str(newest))}"


def describe(entry: RunEntry, now: float | None = None) -> str:
    """One line: name, id, ranks where there are several, where, since when."""
    now = time.time() if now is None else now
    place = f"pid {entry.pid}" if entry.here else f"pid {entry.pid} on {entry.host}"
    if entry.world_size > 1:
        place = f"{entry.world_size} ranks  {place}"
    return f"{entry.name}  {entry.run}  {place}  started {ago(now - entry.created)} ago"


def _at_a_terminal() -> bool:
    return sys.stdin.isatty() and sys.stderr.isatty()
