"""An exception that leaves the training, in words: what died, where in the model, on what.

Everything is read off the traceback, whose frames still know which module was called with which
arguments. Nothing has to be recorded while the training is well, and nothing but words is kept.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, TypeGuard

import torch
from torch import nn

from probe.schema import Site

_MESSAGE = 2000
_INPUTS = 12
_DEPTH = 3
"""How deep tensors are looked for in lists and dicts among the arguments."""


def is_crash(error: object) -> TypeGuard[Exception]:
    """Ctrl-C and ``sys.exit`` end a training without anything being wrong with it."""
    return isinstance(error, Exception)


def describe(
    error: BaseException,
    paths: Mapping[nn.Module, str],
    sites: Sequence[Site],
    traceback: TracebackType | None = None,
) -> dict[str, str]:
    """The details of a crash, all strings; empty where not known.

    ``type``, ``message``; ``phase``: forward, backward, optimizer or loop; ``module``: path of the
    innermost module of the model that was running, ``class`` its class; ``site`` the component it
    belongs to; ``inputs``: dtype and shape of the tensors it was called with, ``;`` between them;
    ``where``: ``file:line`` that raised. ``paths``: from module to its path from the root.
    """
    frames = list(_frames(traceback or error.__traceback__))
    call = _innermost(frames, paths)
    module = call.module if call is not None else None
    path = paths[module] if module is not None else ""
    return {
        "type": type(error).__name__,
        "message": str(error)[:_MESSAGE],
        "phase": _phase(frames, module),
        "module": path,
        "class": type(module).__name__ if module is not None else "",
        "site": site_of(path, sites) if module is not None else "",
        "inputs": "; ".join(_inputs(call)) if call is not None else "",
        "where": _where(frames),
    }


def sentence(details: Mapping[str, str]) -> str:
    """One line for the event log."""
    first = (details["message"].strip().splitlines() or [""])[0]
    at = details["site"] or details["module"]
    name = f" ({details['module']})" if details["site"] and details["module"] else ""
    place = f" at {at}{name}" if at else ""
    inputs = f", called with {details['inputs']}" if details["inputs"] else ""
    return f"{details['type']} in the {details['phase']}{place}: {first}{inputs}"


def site_of(path: str, sites: Sequence[Site]) -> str:
    """The site that owns the module at ``path``, or its nearest parent that a site owns.

    Of several sites at one module (scores, mask and kernel share theirs) the first one counts: it
    is the earliest in the flow of data.
    """
    while True:
        for site in sites:
            if path and path in site.modules:
                return site.name
        if "." not in path:
            return ""
        path = path.rpartition(".")[0]


def uncaught() -> BaseException | None:
    """The exception the interpreter noted last as not caught: at exit, the one that ended it."""
    error = getattr(sys, "last_value", None)
    return error if isinstance(error, BaseException) else None


def _frames(traceback: TracebackType | None) -> Iterator[tuple[FrameType, int]]:
    while traceback is not None:
        yield traceback.tb_frame, traceback.tb_lineno
        traceback = traceback.tb_next


@dataclass
class _Call:
    """A module that was running, and the arguments it was called with, by name where known."""

    module: nn.Module
    names: tuple[str, ...] | None = None
    args: tuple[Any, ...] | None = None
    kwargs: Mapping[str, Any] = field(default_factory=dict)

    def arguments(self) -> list[tuple[str, Any]]:
        args, names = self.args or (), self.names or ()
        return [*zip((*names, *[""] * len(args)), args, strict=False), *self.kwargs.items()]


def _innermost(
    frames: Sequence[tuple[FrameType, int]], paths: Mapping[nn.Module, str]
) -> _Call | None:
    """The innermost call of a module of the model."""
    found: _Call | None = None
    for frame, _ in frames:
        own = frame.f_locals.get("self")
        if not isinstance(own, nn.Module) or own not in paths:
            continue
        if found is None or own is not found.module:
            found = _Call(own)
        if frame.f_code.co_filename.replace("\\", "/").endswith(_MODULE_CALL):
            # Torch's own __call__ holds the arguments as they were given.
            if isinstance(frame.f_locals.get("args"), tuple):
                found.args = frame.f_locals["args"]
                found.kwargs = frame.f_locals.get("kwargs") or {}
        elif found.names is None:
            code = frame.f_code
            found.names = code.co_varnames[1 : code.co_argcount]
            if found.args is None:
                given = code.co_varnames[1 : code.co_argcount + code.co_kwonlyargcount]
                found.kwargs = {name: frame.f_locals.get(name) for name in given}
    return found


_MODULE_CALL = "torch/nn/modules/module.py"


def _phase(frames: Sequence[tuple[FrameType, int]], module: nn.Module | None) -> str:
    for frame, _ in reversed(frames):
        file = frame.f_code.co_filename.replace("\\", "/")
        if "/torch/autograd/" in file and "backward" in frame.f_code.co_name:
            return "backward"
        own = frame.f_locals.get("self")
        if isinstance(own, torch.optim.Optimizer) or "/torch/optim/" in file:
            return "optimizer"
        if file.endswith("/torch/_tensor.py") and frame.f_code.co_name == "backward":
            return "backward"
    return "forward" if module is not None else "loop"


def _inputs(call: _Call) -> list[str]:
    found: list[str] = []
    for name, value in call.arguments():
        for inner, tensor in _tensors(name, value, _DEPTH):
            if len(found) == _INPUTS:
                return [*found, "..."]
            kind = str(tensor.dtype).removeprefix("torch.")
            shape = "x".join(map(str, tensor.shape)) or "scalar"
            found.append(f"{inner + ' ' if inner else ''}{kind} {shape}")
    return found


def _tensors(name: str, value: Any, depth: int) -> Iterable[tuple[str, torch.Tensor]]:
    if isinstance(value, torch.Tensor):
        yield name, value
    elif depth and isinstance(value, (list, tuple)):
        for inner in value[:_INPUTS]:
            yield from _tensors(name, inner, depth - 1)
    elif depth and isinstance(value, dict):
        for key, inner in list(value.items())[:_INPUTS]:
            yield from _tensors(str(key), inner, depth - 1)


def _where(frames: Sequence[tuple[FrameType, int]]) -> str:
    """The innermost line outside of torch: the one a person can change; else the innermost."""
    if not frames:
        return ""
    own = [f for f in frames if "/torch/" not in f[0].f_code.co_filename.replace("\\", "/")]
    frame, line = (own or list(frames))[-1]
    return f"{Path(frame.f_code.co_filename).name}:{line}"
