"""Attaching again: the earlier probe of a model, or of one whose place it took, is closed.

A script attaches once. In a notebook a cell runs again: with the same model, whose hooks must not
be there twice, or with a new one under the old one's name, while the old one lives on in places
that nobody thinks of (the probe itself, the notebook's list of outputs).
"""

from __future__ import annotations

import itertools
import sys
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn

from probe.anatomy import unwrap
from probe.lifecycle import Lifecycle

REASON = "attached again"


@dataclass(frozen=True)
class _Known:
    """A probe and where it was attached from. ``cell``: which run of which cell, None in a script.
    ``names``: those of the model at the notebook's top level; ``run``: the run's, where given."""

    probe: weakref.ref[Lifecycle]
    cell: int | None
    names: frozenset[str]
    run: str | None


_known: weakref.WeakKeyDictionary[nn.Module, _Known] = weakref.WeakKeyDictionary()
_lines = itertools.count()


def take_place(probe: Lifecycle, model: nn.Module, run: str | None) -> None:
    """Close the earlier probes that ``probe``, now attached to ``model``, takes the place of."""
    now = _Known(weakref.ref(probe), _cell(), _names(model), run)
    root = unwrap(model)
    for other, known in list(_known.items()):
        earlier = known.probe()
        if earlier is not None and (other is root or _replaced(known, now)):
            earlier.close(REASON)
            del _known[other]
    _known[root] = now


def watched(root: nn.Module) -> bool:
    """Whether a probe is attached to this model."""
    known = _known.get(unwrap(root))
    probe = known.probe() if known is not None else None
    return probe is not None and probe.running


def _replaced(known: _Known, now: _Known) -> bool:
    if now.cell is None or known.cell is None or known.cell == now.cell:
        return False  # a script, or one cell that attaches to several models
    return bool(known.names & now.names) or (now.run is not None and known.run == now.run)


def _cell() -> int | None:
    """Tells one run of a cell, or one line of an interactive session, from the next."""
    notebook: Any = sys.modules.get("IPython")
    shell = notebook.get_ipython() if notebook is not None else None
    if shell is not None:
        return int(shell.execution_count)
    return next(_lines) if hasattr(sys, "ps1") else None


def _names(model: nn.Module) -> frozenset[str]:
    return frozenset(_named(model)) if _interactive() else frozenset()


def _named(model: nn.Module) -> Iterator[str]:
    top = dict(vars(sys.modules["__main__"]))
    return (name for name, value in top.items() if value is model and not name.startswith("_"))


def _interactive() -> bool:
    return "IPython" in sys.modules or hasattr(sys, "ps1")
