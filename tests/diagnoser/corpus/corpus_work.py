"""A job for the pool's tests. Imports nothing heavy: every process started imports this."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator


def echo(job: str) -> Iterator[str]:
    """Yields its name; ``die`` and ``hang`` do as they are called."""
    yield f"begun {job}"
    if job == "die":
        os._exit(7)
    while job == "hang":
        time.sleep(60)
    yield f"done {job}"
