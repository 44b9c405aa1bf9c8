"""The forms in which a model is compiled, and where a call of a compiled model can be seen.

Hooks on a compiled module are traced into its graph, where they would break it: the probe's vanish
while they are traced (:class:`probe.listening.Hook`), so the call has to be seen from outside.
"""

from __future__ import annotations

import gc
import sys
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


def compiled_in_place(module: nn.Module) -> bool:
    """Whether ``module.compile()`` was called: calling it runs a graph, which no hook sees."""
    return getattr(module, "_compiled_call_impl", None) is not None and not is_wrapper(module)


def is_wrapper(module: Any) -> bool:
    """What ``torch.compile(module)`` returns."""
    kind = _wrapper_class()
    return kind is not None and isinstance(module, kind)


def calls_compiled(module: nn.Module) -> bool:
    """Whether a function that was compiled by itself is at hand in this module's code: kept by it,
    by its class, or where its methods look names up. Flex attention is mostly called so."""
    if "torch._dynamo" not in sys.modules:
        return False
    parts = list(module.modules())
    kinds = {type(part) for part in parts}
    return any(map(_at_hand, kinds)) or any(_holds(vars(part)) for part in parts)


def _at_hand(kind: type[nn.Module]) -> bool:
    """Of classes that are not torch's own."""
    for own in kind.__mro__:
        if own.__module__.partition(".")[0] == "torch":
            continue
        for member in vars(own).values():
            code, names = getattr(member, "__code__", None), getattr(member, "__globals__", {})
            if _is_compiled_function(member):
                return True
            if code is not None and _holds({n: names.get(n) for n in code.co_names}):
                return True
    return False


def _holds(found: dict[str, Any]) -> bool:
    return any(_is_compiled_function(value) for value in found.values())


def _is_compiled_function(value: Any) -> bool:
    value = getattr(value, "__func__", value)
    return callable(value) and "_torchdynamo_orig_callable" in getattr(value, "__dict__", {})


def wrappers_of(model: nn.Module) -> list[nn.Module]:
    """Compiled wrappers made of ``model``, which it knows nothing of.

    Looks through all objects of the process: some tens of milliseconds, so not at every step.
    """
    kind = _wrapper_class()
    if kind is None:
        return []
    return [o for o in gc.get_objects() if type(o) is kind and o._orig_mod is model]


def _wrapper_class() -> Any:
    """None as long as nothing was compiled: importing the compiler takes seconds."""
    return getattr(sys.modules.get("torch._dynamo.eval_frame"), "OptimizedModule", None)
