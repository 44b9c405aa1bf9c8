"""Whether an object belongs to this process or was copied into it by a fork.

Asked in every hook, so the answer is kept where it can be read without a call.
"""

from __future__ import annotations

import os
import weakref


class Birthplace:
    """``left`` turns True in a child forked since this was made."""

    __slots__ = ("__weakref__", "left")

    def __init__(self) -> None:
        self.left = False
        _known.add(self)


_known: weakref.WeakSet[Birthplace] = weakref.WeakSet()


def _forked() -> None:
    for birthplace in list(_known):
        birthplace.left = True


os.register_at_fork(after_in_child=_forked)
