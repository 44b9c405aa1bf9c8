"""The list of this user's runs: one small file each, found by any monitor of the same user.

The files lie in the state directory, normally in the home, so that machines sharing homes see
each other's runs. They are readable by their owner only, since an entry holds the key to its run.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import stat
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from probe.directories import (
    DirectoryError,
    runs_dir,
    runtime_dir,
    state_dir,
    traces_dir,
)
from probe.processes import boot_id, is_running, pid_namespace, start_time

ELSEWHERE_SECONDS = 2 * 24 * 3600.0
"""An entry of another machine not refreshed for this long belongs to a run that was killed."""
REFRESH_SECONDS = 3600.0
_MAX_ENTRY_BYTES = 64 * 1024


class RegistryError(Exception):
    """No such run, or the list cannot be used; the message is one sentence saying what to do."""


class RunEntry(msgspec.Struct, kw_only=True, frozen=True):
    """One rank of one run, as registered."""

    run: str
    """Sortable run id, unique."""
    name: str
    created: float
    """Unix time, seconds."""
    host: str
    boot_id: str
    pid_namespace: str = ""
    pid: int
    started: str
    """Start time of the process, see :func:`probe.processes.start_time`."""
    interpreter: str
    """The Python that runs the training, which can therefore also run the bridge."""
    publish: str = ""
    """Endpoint of the stream; empty where the run has no sockets and only its trace can be read."""
    control: str = ""
    """Endpoint of requests."""
    key: str = ""
    """Access key, for :func:`probe.endpoint.secure_client`; empty for ipc endpoints."""
    trace: str = ""
    """Absolute path of the trace; empty if none is stored."""
    rank: int = 0
    world_size: int = 1

    @property
    def here(self) -> bool:
        """Whether the run's process would be seen from this one: same machine and container."""
        return (self.host, self.pid_namespace) == (socket.gethostname(), pid_namespace())

    @property
    def alive(self) -> bool:
        """Whether the run's process still runs. True for those elsewhere: it cannot be told."""
        if not self.here:
            return True
        return self.boot_id == boot_id() and is_running(self.pid, self.started)


def new_run_id(now: float | None = None) -> str:
    """Sortable and unique: UTC to the millisecond and 24 random bits."""
    now = time.time() if now is None else now
    clock = time.strftime("%Y%m%d-%H%M%S", time.gmtime(now))
    return f"{clock}-{int(now * 1000) % 1000:03d}-{secrets.token_hex(3)}"


def new_entry(
    name: str, *, run: str | None = None, rank: int = 0, world_size: int = 1, trace: str = ""
) -> RunEntry:
    """An entry for the calling process; nothing is written. ``run``: the id all ranks share."""
    now = time.time()
    return RunEntry(
        run=run or new_run_id(now),
        name=name,
        created=now,
        host=socket.gethostname(),
        boot_id=boot_id(),
        pid_namespace=pid_namespace(),
        pid=os.getpid(),
        started=start_time(os.getpid()),
        interpreter=sys.executable,
        trace=trace,
        rank=rank,
        world_size=world_size,
    )


def register(entry: RunEntry) -> Path:
    """Write or replace the entry; returns its file. Raises DirectoryError or OSError."""
    path = _entry_path(entry)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(msgspec.json.encode(entry))
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    return path


def refresh(entry: RunEntry) -> None:
    """Tell other machines that the run still lives. Call every :data:`REFRESH_SECONDS`."""
    # Gone or out of reach does not matter: this machine's own check does not depend on it.
    with contextlib.suppress(OSError, DirectoryError):
        os.utime(_entry_path(entry))


def unregister(entry: RunEntry) -> None:
    """Remove the entry; nothing happens if it is gone."""
    with contextlib.suppress(OSError, DirectoryError):  # the next listing sweeps it
        _entry_path(entry).unlink(missing_ok=True)


def list_runs() -> list[RunEntry]:
    """The runs alive, newest first, those of other machines included.

    Entries of this machine whose process is gone are removed with their sockets. What cannot be
    read as an entry is left alone. Raises DirectoryError.
    """
    entries: list[RunEntry] = []
    for path in sorted(runs_dir().glob("*.json")):
        try:
            if not path.name.startswith("."):
                entry = _read(path)
                if _is_stale(entry, path):
                    _sweep(entry, path)
                else:
                    entries.append(entry)
        except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            continue
    began: dict[str, float] = {}
    for entry in entries:
        began[entry.run] = min(entry.created, began.get(entry.run, entry.created))
    return sorted(entries, key=lambda e: (began[e.run], e.run, -e.rank), reverse=True)


def find(text: str, entries: Sequence[RunEntry] | None = None) -> RunEntry:
    """The live run with this id, this name, or an id that begins so; of several ranks the first.

    Raises :class:`RegistryError` if there is none or more than one.
    """
    entries = list_runs() if entries is None else entries
    for matches in (
        [entry for entry in entries if entry.run == text],
        [entry for entry in entries if entry.name == text],
        [entry for entry in entries if text and entry.run.startswith(text)],
    ):
        runs = sorted({entry.run for entry in matches}, reverse=True)
        if len(runs) > 1:
            raise RegistryError(f"{text!r} may be any of several runs: say {' or '.join(runs)}")
        if matches:
            return min(matches, key=lambda entry: entry.rank)
    known = ", ".join(dict.fromkeys(f"{entry.name} ({entry.run})" for entry in entries))
    if known:
        raise RegistryError(f"no live run is called {text!r}; there are: {known}")
    raise RegistryError(
        f"no live run is called {text!r}, and none is registered: start the training with "
        "probe.attach(model, optimizer) first"
    )


def _entry_path(entry: RunEntry) -> Path:
    safe = "".join(char if char.isalnum() or char in "-_." else "_" for char in entry.run)
    return runs_dir() / f"{safe.lstrip('.')[:200]}-{entry.rank}.json"


def _read(path: Path) -> RunEntry:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        return msgspec.json.decode(file.read(_MAX_ENTRY_BYTES), type=RunEntry)


def _is_stale(entry: RunEntry, path: Path) -> bool:
    if entry.here:
        return not entry.alive
    return time.time() - path.stat().st_mtime > ELSEWHERE_SECONDS


def _sweep(entry: RunEntry, path: Path) -> None:
    path.unlink(missing_ok=True)
    if not entry.here:
        return
    for endpoint in (entry.publish, entry.control):
        file = Path(endpoint.removeprefix("ipc://"))
        # Only ever a socket: the entry is a file that anything could have been written into.
        if endpoint.startswith("ipc:///") and file.exists() and stat.S_ISSOCK(file.lstat().st_mode):
            file.unlink(missing_ok=True)


__all__ = [
    "DirectoryError",
    "RegistryError",
    "RunEntry",
    "find",
    "list_runs",
    "new_entry",
    "new_run_id",
    "refresh",
    "register",
    "runs_dir",
    "runtime_dir",
    "state_dir",
    "traces_dir",
    "unregister",
]
