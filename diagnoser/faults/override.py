"""Changes to a live model that leave no trace when undone.

No module hooks are used: a hook would be seen by whoever looks at the model's hooks, and would
run outside the module's own call. Instance attributes override what the class defines instead.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

_ABSENT = object()


def _put(undo: ExitStack, owner: object, name: str, value: Any) -> None:
    """Place ``value`` in the instance's own dictionary, before anything its class offers."""
    space = owner.__dict__
    previous = space.get(name, _ABSENT)
    space[name] = value

    def restore() -> None:
        if previous is _ABSENT:
            space.pop(name, None)
        else:
            space[name] = previous

    undo.callback(restore)


def override_forward(
    undo: ExitStack, module: nn.Module, build: Callable[[Callable[..., Any]], Callable[..., Any]]
) -> None:
    """Replace ``module.forward`` on this instance by ``build(original forward)``."""
    original = module.forward
    replacement = build(original)

    @functools.wraps(original)
    def forward(*args: Any, **kwargs: Any) -> Any:
        return replacement(*args, **kwargs)

    _put(undo, module, "forward", forward)


class _Shadow:
    """Stands before a submodule when its owner calls it by attribute; all else passes through.

    It passes for the submodule's class, so that ``get_submodule`` finds it and hooks registered
    on what that returns land on the real submodule.
    """

    def __init__(self, real: nn.Module, call: Callable[..., Any]) -> None:
        self._real = real
        self._call = call

    @property  # type: ignore[misc]
    def __class__(self) -> type[nn.Module]:  # type: ignore[override]
        return type(self._real)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._call(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


def shadow_submodule(
    undo: ExitStack,
    owner: nn.Module,
    name: str,
    build: Callable[[nn.Module], Callable[..., Any]],
) -> None:
    """Let ``owner.NAME(...)`` run ``build(submodule)`` while the submodule stays registered.

    This is how a bug in the owner's code looks from outside: the submodule itself computes what
    it should, but is called with the wrong input, or its result is used wrongly. Instance
    attributes are found before registered submodules, so hooks, parameters and names are kept.
    """
    real = owner._modules[name]
    if real is None:
        raise ValueError(f"{type(owner).__name__}.{name} is None; there is nothing to override.")
    _put(undo, owner, name, _Shadow(real, build(real)))


def set_attribute(undo: ExitStack, owner: object, name: str, value: Any) -> None:
    """Set a plain attribute that the owner's code reads."""
    if not hasattr(owner, name):
        raise ValueError(f"{type(owner).__name__} has no attribute {name!r} to change.")
    _put(undo, owner, name, value)


def edit_parameter(
    undo: ExitStack, parameter: nn.Parameter, change: Callable[[torch.Tensor], None]
) -> None:
    """Change a parameter in place with ``change(parameter.data)``.

    Undone by taking back what the change added, so that what training learned meanwhile stays;
    a parameter that nobody touched meanwhile gets its old values back bit for bit.
    """
    data = parameter.data
    before = data.clone()
    change(data)
    written = data.clone()

    def restore() -> None:
        now = parameter.data
        if torch.equal(now, written):
            now.copy_(before)
        else:
            now.sub_(written - before)

    undo.callback(restore)


def wrap_step(
    undo: ExitStack, optimizer: Optimizer, build: Callable[[Callable[..., Any]], Callable[..., Any]]
) -> None:
    """Replace ``optimizer.step`` on this instance by ``build(original step)``.

    A learning rate scheduler may wrap the step again later; then the replacement cannot be
    taken out of its closure and is switched off instead.
    """
    original = optimizer.step
    replacement = build(original)
    active = True

    @functools.wraps(original)
    def step(self: Optimizer, *args: Any, **kwargs: Any) -> Any:
        return (replacement if active else original)(*args, **kwargs)

    # Schedulers read step.__func__, so it has to be a bound method.
    bound = types.MethodType(step, optimizer)
    previous = optimizer.__dict__.get("step", _ABSENT)
    optimizer.__dict__["step"] = bound

    def restore() -> None:
        nonlocal active
        active = False
        if optimizer.__dict__.get("step") is bound:
            if previous is _ABSENT:
                del optimizer.__dict__["step"]
            else:
                optimizer.__dict__["step"] = previous

    undo.callback(restore)
