"""A job for the pool's tests. Imports nothing heavy: every process started imports this."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator


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
