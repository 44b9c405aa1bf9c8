"""Where the probe is called from: the model's forward, in whatever form, and the optimizers' steps.

Between samples these are the only hooks there are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any, Protocol

import torch
from torch import nn
from torch.compiler import is_compiling

from probe.compiled import is_compiled, is_wrapper, wrappers_of

_SEARCHES = 3
"""How often a model that trains unseen is searched for."""


class Hook:
    """A hook that belongs to one object and does nothing while a graph is traced.

    Copying or pickling the object it hangs on (an averaged copy, ``torch.save(model)``) must not
    copy the probe: there the hook becomes a standard function that ignores its arguments.
    """

    __slots__ = ("_call",)

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call

    def __call__(self, *args: Any) -> Any:
        return None if is_compiling() else self._call(*args)

    def __deepcopy__(self, memo: dict[int, Any]) -> Callable[..., None]:
        return nullcontext().__exit__

    def __reduce__(self) -> tuple[Any, ...]:
        return getattr, (nullcontext(), "__exit__")


class StepHook(Hook):
    """A hook on an optimizer, called with the optimizer's place instead of its arguments."""

    __slots__ = ("_place",)

    def __init__(self, call: Callable[[int], None], place: int) -> None:
        super().__init__(call)
        self._place = place

    def __call__(self, *_: Any) -> Any:
        if not is_compiling():
            self._call(self._place)


class BeginHook(StepHook):
    """Before an optimizer's step. A closure makes the gradients inside the step, so with one the
    call waits for its end."""

    __slots__ = ()

    def __call__(self, _: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if is_compiling():
            return None
        closure = args[1] if len(args) > 1 else kwargs.get("closure")
        if not callable(closure):
            self._call(self._place)
            return None
        waiting = [self._place]  # it may be called again, when the weights have begun to move

        def watched(*own: Any, **named: Any) -> Any:
            result = closure(*own, **named)
            if waiting:
                self._call(waiting.pop())
            return result

        if len(args) > 1:
            return (args[0], watched, *args[2:]), kwargs
        return args, {**kwargs, "closure": watched}


class Listener(Protocol):
    """What is called. None of it may raise."""

    def forward_begins(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        """A call of the model; its arguments."""

    def forward_ended(self, module: nn.Module, args: Any, kwargs: Any, out: Any) -> None:
        """The call returned ``out``; None where it raised."""

    def step_begins(self, optimizer: int) -> None:
        """An optimizer, given by its place, is about to step: the gradients are all there."""

    def stepped(self, optimizer: int) -> None:
        """It has stepped."""


class Listening:
    """The hooks on one model and its optimizers; :meth:`remove` takes all of them off."""

    def __init__(
        self, model: nn.Module, optimizers: Sequence[torch.optim.Optimizer], listener: Listener
    ) -> None:
        self._model = model
        self._listener = listener
        self._handles: list[Any] = []
        self._known: list[nn.Module] = []
        self._calls: list[tuple[nn.Module, Any, Any]] = []
        self._inside = False
        self._searches = 0
        self._on(model)
        for place, optimizer in enumerate(optimizers):
            begins = BeginHook(listener.step_begins, place)
            ended = StepHook(listener.stepped, place)
            self._handles += [
                optimizer.register_step_pre_hook(begins),
                optimizer.register_step_post_hook(ended),
            ]

    @property
    def compiled(self) -> bool:
        """Whether the model, or a part of it, runs as a graph."""
        return any(is_compiled(module) for module in self._known)

    def follow(self) -> None:
        """A step was taken and no forward seen: the model may have been compiled meanwhile."""
        if self._searches >= _SEARCHES:
            return
        self._searches += 1
        self._around_compiled_call(self._model)
        for wrapper in wrappers_of(self._model):
            if not any(wrapper is known for known in self._known):
                self._on(wrapper)

    def remove(self) -> None:
        """Leave everything as it was found."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        for module, ours, original in self._calls:
            # Compiled anew since: then there is nothing of ours left to take back.
            if module.__dict__.get("_compiled_call_impl") is ours:
                module._compiled_call_impl = original
        self._calls.clear()
        self._known.clear()

    def _on(self, module: nn.Module) -> None:
        self._known.append(module)
        self._handles += [
            module.register_forward_pre_hook(Hook(self._begins), with_kwargs=True),
            module.register_forward_hook(Hook(self._ended), with_kwargs=True, always_call=True),
        ]
        self._around_compiled_call(module)

    def _begins(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        if not self._inside:
            self._listener.forward_begins(module, args, kwargs)

    def _ended(self, module: nn.Module, args: Any, kwargs: Any, out: Any) -> None:
        if not self._inside:
            self._listener.forward_ended(module, args, kwargs, out)

    def _around_compiled_call(self, module: nn.Module) -> None:
        """See the calls of a module compiled in place, from outside of its graph."""
        original = module.__dict__.get("_compiled_call_impl")
        if original is None or is_wrapper(module):
            return
        if any(original is ours for _, ours, _ in self._calls):
            return

        def call(*args: Any, **kwargs: Any) -> Any:
            if is_compiling() or self._inside:
                return original(*args, **kwargs)
            out = None
            self._listener.forward_begins(module, args, kwargs)
            self._inside = True  # where the graph falls back to eager code, its hooks run too
            try:
                out = original(*args, **kwargs)
                return out
            finally:
                self._inside = False
                self._listener.forward_ended(module, args, kwargs, out)

        self._calls.append((module, call, original))
        module._compiled_call_impl = call
