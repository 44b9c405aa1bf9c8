"""The forms in which a model is compiled, and where a call of a compiled model can be seen.

Hooks on a compiled module are traced into its graph, where they would break it: the probe's vanish
while they are traced (:class:`probe.listening.Hook`), so the call has to be seen from outside.
"""

from __future__ import annotations

import gc
from collections.abc import Iterable
from typing import Any

from torch import nn


def is_compiled(model: nn.Module) -> bool:
    """Whether any part runs as a graph: wrapped, compiled in place, or with a compiled forward."""
    return any(_part_is_compiled(module) for module in model.modules())


def _part_is_compiled(module: nn.Module) -> bool:
    return (
        is_wrapper(module)
        or getattr(module, "_compiled_call_impl", None) is not None
        or hasattr(module.__dict__.get("forward"), "_torchdynamo_orig_callable")
    )


def is_wrapper(module: Any) -> bool:
    """What ``torch.compile(module)`` returns; told by its name, since importing it is slow."""
    return type(module).__name__ == "OptimizedModule"


def wrappers_of(model: nn.Module) -> list[nn.Module]:
    """Compiled wrappers made of ``model``, which it knows nothing of.

    Looks through all objects of the process: some tens of milliseconds, so not at every step.
    """
    holders: list[Any] = [holder for holder in gc.get_referrers(model) if _holds(holder, model)]
    candidates = (*holders, *_owners(holders))
    wrappers = [w for w in candidates if is_wrapper(w) and w._orig_mod is model]
    return list({id(wrapper): wrapper for wrapper in wrappers}.values())


def _holds(holder: Any, model: nn.Module) -> bool:
    if is_wrapper(holder):
        return True
    return isinstance(holder, dict) and holder.get("_orig_mod") is model


def _owners(holders: Iterable[Any]) -> list[Any]:
    dicts = [holder for holder in holders if isinstance(holder, dict)]
    return gc.get_referrers(*dicts) if dicts else []
