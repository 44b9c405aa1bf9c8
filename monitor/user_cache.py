"""Where the monitor keeps what it can do without."""

from __future__ import annotations

import os
from pathlib import Path


def cache_directory() -> Path | None:
    """``$XDG_CACHE_HOME/defaultpp-monitor``, usually below ``~/.cache``; None without a home."""
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        home = Path(base) if base and os.path.isabs(base) else Path.home() / ".cache"
    except RuntimeError:
        return None
    return home / "defaultpp-monitor"
