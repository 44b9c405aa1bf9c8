"""Names of the heads of a site: ``attention@2.h5`` is head 5 of ``attention@2``."""

from __future__ import annotations

import re

_HEAD = re.compile(r"(?P<whole>.+)\.h(?P<head>\d+)")


def head_site(site: str, head: int) -> str:
    """The name of one head of ``site``."""
    return f"{site}.h{head}"


def split(site: str) -> tuple[str, int | None]:
    """``attention@2.h5`` -> (``attention@2``, 5); None where ``site`` is no head."""
    match = _HEAD.fullmatch(site)
    return (match["whole"], int(match["head"])) if match else (site, None)


def is_head(site: str) -> bool:
    """Whether ``site`` names a head, and not a whole component."""
    return _HEAD.fullmatch(site) is not None
