"""A job for the pool's tests. Imports nothing heavy: every process started imports this."""

from __future__ import annotations

import fcntl
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path


def echo(job: str) -> Iterator[str]:
    """Yields its name; ``die`` and ``hang`` do as they are called, ``kill`` ends the worker."""
    yield f"begun {job}"
    if job == "kill":
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(60)
    if job == "die":
        os._exit(7)
    while job == "hang":
        time.sleep(60)
    yield f"done {job}"


def linger(folder: str) -> Iterator[str]:
    """Holds the lock of a file of its own in the folder, and does not end."""
    with (Path(folder) / f"{os.getpid()}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write("held")
        file.flush()
        yield "begun"
        while True:
            time.sleep(60)
