"""Runs a model again at a step's end and leaves no trace in it or in the training.

Without gradients and autocast, in the mode the modules are in, with dropout silenced. Random number
generators are put back; so are buffers, and the attributes of every module with the lists, dicts
and tensors they hold. Hooks on the model itself are not called, those on modules inside it are.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from probe.batch import read_output
from probe.ranks import ranks
from probe.shards import has_shards
from probe.silenced import Other, Silenced

MOST_STATE = 64 * 2**20
"""Bytes of buffers that are copied; a model with more is not run again."""
MOST_ELEMENTS = 2**18
"""Of a tensor that is no buffer: a larger one is put back, but not what was written into it."""

_OF_TORCH = frozenset(vars(nn.Module())) - {"_buffers", "_parameters", "_modules", "training"}
"""Attributes that torch keeps in every module, its hooks mostly."""


class NotRepeatable(Exception):
    """The model cannot be run again without consequences, or not twice alike. Says why."""


@dataclass(frozen=True)
class Call:
    """Arguments of a model's forward; copies."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]


@dataclass(frozen=True)
class Ran:
    """What a rerun gave. ``states``: logits, else last hidden states, or a module's output; None
    where there are none. ``found``, ``casts``: see :class:`probe.silenced.Silenced`."""

    states: torch.Tensor | None
    found: bool
    casts: bool


def why_never(root: nn.Module) -> str:
    """Why this model is never run again, from what it is made of; empty where it may be."""
    _, world = ranks()
    parameters = list(root.parameters())
    if any(p.device.type not in ("cpu", "cuda") for p in parameters):
        return "random numbers of this kind of device are not put back"
    sharded = has_shards(root) or any(hasattr(p, "ds_id") for p in parameters)
    kinds = {type(m).__name__ for m in root.modules()}
    if sharded or any("FSDP" in kind or kind.startswith("FullySharded") for kind in kinds):
        return "the model is sharded: it cannot run on one rank alone"
    if world > 1 and ("SyncBatchNorm" in kinds or not _known_not_to_wait(root)):
        return "a forward of this model may wait for the other ranks"
    if any(getattr(m, "max_norm", None) is not None for m in root.modules()):
        return "an embedding with max_norm changes its weights when it is read"
    return ""


def _known_not_to_wait(root: nn.Module) -> bool:
    """transformers' models call no collectives, unless split over ranks by a plan."""
    split = getattr(root, "_tp_size", None) not in (None, 1)
    meshed = getattr(root, "_device_mesh", None) is not None
    return hasattr(getattr(root, "config", None), "model_type") and not split and not meshed


def run(
    root: nn.Module, calls: list[tuple[Call, Other | None]], module: nn.Module | None = None
) -> list[Ran]:
    """One forward for each of ``calls``, each from another state of the random numbers.

    ``module``: whose output is wanted, of its last call; None: the model's. Raises
    :class:`NotRepeatable`, and whatever the model raises. Not to be called under
    :class:`probe.quiet.quiet`, which would hide calls from the mode.
    """
    devices = sorted({p.device.index or 0 for p in root.parameters() if p.is_cuda})
    kind = next(root.parameters()).device.type
    done = []
    with (
        torch.no_grad(),
        torch.autocast(kind, enabled=False),
        _unwarned(),
        _same_random_numbers(devices),
        _restored(root),
    ):
        for call, other in calls:
            _advance(devices)
            before = _random_state(devices)
            with Silenced(kind, other) as mode, _output_of(module) as inner:
                # The forward itself: a call would go through the hooks of probe and user.
                out = root.forward(*call.args, **call.kwargs)
            if not _same(before, _random_state(devices)):
                raise NotRepeatable("the model draws random numbers beside dropout")
            states = _states(out) if module is None else inner[-1] if inner else None
            done.append(Ran(states, mode.found, mode.casts))
    return done


def _states(out: Any) -> torch.Tensor | None:
    _, logits = read_output(out)
    if logits is None:
        logits = getattr(out, "last_hidden_state", None)
    return logits.detach() if isinstance(logits, torch.Tensor) else None


@contextmanager
def _output_of(module: nn.Module | None) -> Iterator[list[torch.Tensor]]:
    """The tensors that ``module`` gives inside."""
    found: list[torch.Tensor] = []

    def after(module: nn.Module, args: Any, out: Any) -> None:
        out = out[0] if isinstance(out, tuple) else out
        found.extend([out.detach()] if isinstance(out, torch.Tensor) else [])

    handle = module.register_forward_hook(after) if module is not None else None
    try:
        yield found
    finally:
        if handle is not None:
            handle.remove()


@contextmanager
def _unwarned() -> Iterator[None]:
    """Reentrant checkpointing warns, each time, that nothing requires gradients: here by intent."""
    checkpoint = sys.modules.get("torch.utils.checkpoint")
    original = getattr(checkpoint, "check_backward_validity", None)
    if original is None:
        yield
        return
    checkpoint.check_backward_validity = lambda inputs: None  # type: ignore[union-attr]
    try:
        yield
    finally:
        checkpoint.check_backward_validity = original  # type: ignore[union-attr]


@contextmanager
def _same_random_numbers(devices: list[int]) -> Iterator[None]:
    own, numbers = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        random.setstate(own)
        np.random.set_state(numbers)


def _advance(devices: list[int]) -> None:
    torch.rand(1, device="cpu")
    random.random()
    np.random.random()
    for device in devices:
        torch.rand(1, device=f"cuda:{device}")


def _random_state(devices: list[int]) -> list[Any]:
    states = [torch.get_rng_state(), *(torch.cuda.get_rng_state(device) for device in devices)]
    _, keys, place, *_ = np.random.get_state()
    return [*states, torch.from_numpy(np.append(keys, place).astype(np.int64)), random.getstate()]


def _same(one: list[Any], two: list[Any]) -> bool:
    return all(
        torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b
        for a, b in zip(one, two, strict=True)
    )


@dataclass
class _Held:
    """What a module's attributes were, and what the containers among them held."""

    module: nn.Module
    attributes: dict[str, Any]
    containers: list[tuple[Any, Any]] = field(default_factory=list)


@contextmanager
def _restored(root: nn.Module) -> Iterator[None]:
    held: list[_Held] = []
    tensors: dict[int, torch.Tensor] = {}
    for module in root.modules():
        own = {n: v for n, v in vars(module).items() if n not in _OF_TORCH}
        kept = _Held(module, own)
        for value in own.values():
            for kind in (list, dict, set):
                if isinstance(value, kind):
                    kept.containers.append((value, kind(value)))
            # A large one is an activation that was put aside; the next forward replaces it.
            if isinstance(value, torch.Tensor) and value.numel() <= MOST_ELEMENTS:
                tensors[id(value)] = value
        tensors.update((id(b), b) for b in module.buffers(recurse=False))
        held.append(kept)
    if sum(t.numel() * t.element_size() for t in tensors.values()) > MOST_STATE:
        raise NotRepeatable("the model's buffers are too large to be kept aside")
    copies = [(t, t._version, t.detach().clone()) for t in tensors.values()]
    try:
        yield
    finally:
        for kept in held:
            _put_back(kept)
        for tensor, version, copy in copies:
            if tensor._version != version:
                tensor.copy_(copy)


def _put_back(held: _Held) -> None:
    now = vars(held.module)
    for name in [n for n in now if n not in _OF_TORCH and n not in held.attributes]:
        del now[name]
    for name, value in held.attributes.items():
        if now.get(name) is not value:
            now[name] = value
    for container, before in held.containers:
        if _unlike(container, before):
            container.clear()
            (container.extend if isinstance(container, list) else container.update)(before)


def _unlike(one: Any, two: Any) -> bool:
    """Compared by identity: what tensors hold is no matter here."""
    if len(one) != len(two):
        return True
    if isinstance(one, dict):
        return any(k not in two or two[k] is not v for k, v in one.items())
    if isinstance(one, set):
        return one != two
    return any(a is not b for a, b in zip(one, two, strict=True))
