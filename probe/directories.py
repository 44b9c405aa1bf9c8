"""The directories of this user: one for sockets, one for traces and the list of runs."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path
from typing import Literal

from probe.notices import Notices

RUNTIME_VARIABLE = "DEFAULTPP_RUNTIME_DIR"
STATE_VARIABLE = "DEFAULTPP_STATE_DIR"


class DirectoryError(Exception):
    """A directory that cannot be made or is not safe to use; the message says what to do."""


def runtime_dir() -> Path:
    """Where this user's sockets live: ``$XDG_RUNTIME_DIR/defaultpp`` or ``/tmp/defaultpp-UID``.

    ``DEFAULTPP_RUNTIME_DIR`` replaces it. Private: whoever may open a socket may pause the run.
    """
    chosen = os.environ.get(RUNTIME_VARIABLE)
    if chosen:
        return private_dir(Path(chosen), RUNTIME_VARIABLE)
    session = os.environ.get("XDG_RUNTIME_DIR")
    if session and _usable(Path(session)):
        return private_dir(Path(session) / "defaultpp", RUNTIME_VARIABLE)
    return fallback_runtime_dir()


def fallback_runtime_dir() -> Path:
    """``/tmp/defaultpp-UID``: short, and there on every machine."""
    return private_dir(Path("/tmp") / f"defaultpp-{os.getuid()}", RUNTIME_VARIABLE)


def state_dir() -> Path:
    """Where this user's runs are listed and traces stored: ``~/.local/state/defaultpp``.

    ``$XDG_STATE_HOME`` moves it as usual, ``DEFAULTPP_STATE_DIR`` replaces it. Usually in the home
    directory, so that machines which share homes list each other's runs. Where the home cannot be
    written, it is a directory beside the sockets.
    """
    chosen = os.environ.get(STATE_VARIABLE)
    if chosen:
        return _owned_dir(Path(chosen).expanduser())
    base = os.environ.get("XDG_STATE_HOME")
    try:
        home = Path(base) if base and os.path.isabs(base) else Path.home() / ".local" / "state"
        return _owned_dir(home / "defaultpp")
    except (DirectoryError, RuntimeError):  # RuntimeError: a user without a home
        return _owned_dir(runtime_dir() / "state")


def traces_dir() -> Path:
    """Where traces are stored unless the user names a place."""
    return _owned_dir(state_dir() / "traces")


def runs_dir() -> Path:
    """Where runs are registered, one file each."""
    return _owned_dir(state_dir() / "runs")


def private_dir(path: Path, variable: str) -> Path:
    """``path``, made with mode 0700 if it is not there.

    Raises :class:`DirectoryError` where it is a link, belongs to someone else or is open to
    others: in ``/tmp`` another user may have made it first.
    """
    other = f"remove it or set {variable} to a directory of your own"
    status = _made(path, variable)
    if stat.S_ISLNK(status.st_mode):
        raise DirectoryError(f"{path} is a link, which is not safe for sockets: {other}")
    if not stat.S_ISDIR(status.st_mode):
        raise DirectoryError(f"{path} is not a directory: {other}")
    if status.st_uid != os.getuid():
        raise DirectoryError(f"{path} belongs to another user: set {variable} to another directory")
    if status.st_mode & 0o077:
        raise DirectoryError(f"{path} is open to other users: run chmod 700 {path}")
    return path


def _owned_dir(path: Path) -> Path:
    """Like :func:`private_dir`, but links are fine (a home often keeps large data elsewhere)."""
    _made(path, STATE_VARIABLE)
    status = path.stat() if path.exists() else None
    if status is None or not stat.S_ISDIR(status.st_mode):
        raise DirectoryError(f"{path} is not a directory: set {STATE_VARIABLE} to another one")
    if status.st_mode & 0o022:
        raise DirectoryError(f"{path} can be written by other users: run chmod 700 {path}")
    if not os.access(path, os.W_OK | os.X_OK):
        raise DirectoryError(f"{path} cannot be written: set {STATE_VARIABLE} to another directory")
    return path


def trace_path(
    trace: str | os.PathLike[str] | Literal[False] | None, run: str, notices: Notices, rank: int = 0
) -> Path | None:
    """Where to record: the given path, one in the state directory (told once), or nowhere. Each
    rank of a run has a file of its own."""
    if trace is False:
        return None
    if trace is not None:
        return rank_path(Path(trace), rank)
    try:
        path = rank_path(traces_dir() / f"{run}.trace", rank)
    except Exception as error:
        notices.transport(error)
        return None
    notices.tell(f"recording to {path}; watch with: defaultpp-monitor")
    return path


def rank_path(path: Path, rank: int) -> Path:
    """The file of one rank, where all were given the same: ``a.trace``, ``a.rank1.trace``."""
    return path if rank == 0 else path.with_name(f"{path.stem}.rank{rank}{path.suffix}")


def _made(path: Path, variable: str) -> os.stat_result:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            path.mkdir(mode=0o700)
        return path.lstat()
    except OSError as error:
        raise DirectoryError(
            f"{path} cannot be made ({error.strerror}): set {variable} to another directory"
        ) from None


def _usable(path: Path) -> bool:
    """False for the runtime directory of another user, as sudo and su leave it behind."""
    try:
        return path.stat().st_uid == os.getuid() and os.access(path, os.W_OK | os.X_OK)
    except OSError:
        return False


__all__ = [
    "RUNTIME_VARIABLE",
    "STATE_VARIABLE",
    "DirectoryError",
    "fallback_runtime_dir",
    "private_dir",
    "runs_dir",
    "runtime_dir",
    "state_dir",
    "trace_path",
    "traces_dir",
]
