"""Training loops as people write them, each run with and without the probe and compared bit by bit.

A loop is a function ``loop(model, family, watch, steps)``; it calls ``watch.begin(*optimizers)``
once, and ``watch.note(...)`` with what it wants compared.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tiny_models import Seen, batch, make

import probe
from probe.schema import Event, Scalars


@dataclass
class Watch:
    """What one run of a loop did, and the probe that watched it, if any."""

    model: torch.nn.Module
    options: dict[str, Any] | None = None
    probe: probe.Probe | None = None
    losses: list[torch.Tensor] = field(default_factory=list)
    gradients: list[list[torch.Tensor | None]] = field(default_factory=list)
    """What each optimizer step used, parameter by parameter."""
    norms: list[float] = field(default_factory=list)
    step_losses: list[float] = field(default_factory=list)
    weights: list[list[torch.Tensor]] = field(default_factory=list)
    states: tuple[Any, ...] = ()

    def begin(self, optimizer: Any, model: torch.nn.Module | None = None) -> None:
        if self.options is not None:
            chosen = {"endpoint": False, "every": 1, "budget": None} | self.options
            self.probe = probe.attach(self.model if model is None else model, optimizer, **chosen)

    def before(self, *losses: torch.Tensor, scale: float = 1.0) -> None:
        """Just before an optimizer step: gradients, weights, and the step's losses."""
        self.losses += [loss.detach().clone() for loss in losses]
        self.step_losses.append(sum(float(loss.detach()) for loss in losses) / len(losses))
        own = list(self.model.parameters())
        self.gradients.append([None if p.grad is None else p.grad.clone() for p in own])
        squares = [
            float((p.grad / scale).double().square().sum()) for p in own if p.grad is not None
        ]
        self.norms.append(sum(squares) ** 0.5)
        self.weights.append([p.detach().clone() for p in own])

    def end(self) -> None:
        self.weights.append([p.detach().clone() for p in self.model.parameters()])
        self.states = (torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist())
        if self.probe is not None:
            self.probe.close()


Loop = Callable[[torch.nn.Module, str, Watch, int], None]


def run(
    loop: Loop, family: str, steps: int, options: dict[str, Any] | None, prepare: Any = None
) -> Watch:
    model = make(family)
    if prepare is not None:
        prepare(model)
    watch = Watch(model, options)
    torch.manual_seed(7)
    random.seed(7)
    np.random.seed(7)
    loop(model, family, watch, steps)
    watch.end()
    return watch


def same(one: Any, two: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return one.dtype == two.dtype and torch.equal(one.nan_to_num(9.0), two.nan_to_num(9.0))
    if isinstance(one, (list, tuple)):
        return len(one) == len(two) and all(same(a, b) for a, b in zip(one, two, strict=True))
    return one == two


def compared(
    loop: Loop, family: str, path: Path, steps: int = 5, prepare: Any = None, **options: Any
) -> tuple[Watch, Seen]:
    """Run with and without; assert bit equality; the watched run and what it recorded."""
    plain = run(loop, family, steps, None, prepare)
    watched = run(loop, family, steps, {"trace": path} | options, prepare)
    for name in ("losses", "gradients", "weights", "states"):
        assert same(getattr(plain, name), getattr(watched, name)), name
    seen = Seen(path)
    assert not kinds(seen, "probe_off"), kinds(seen, "probe_off")
    return watched, seen


def kinds(seen: Seen, kind: str) -> list[Event]:
    return [r for r in seen.records if isinstance(r, Event) and r.kind == kind]


def scalar(seen: Seen, name: str) -> dict[int, float]:
    """A scalar by step."""
    found: dict[int, float] = {}
    for record in seen.records:
        if isinstance(record, Scalars) and name in record.names:
            column = record.array[:, record.names.index(name)]
            found.update(zip(record.steps, column.tolist(), strict=True))
    return found


def update_ratio(watch: Watch, at: int, path: str) -> float:
    """Change of one parameter by step ``at`` over its norm, on all its elements."""
    place = [name for name, _ in watch.model.named_parameters()].index(path)
    before, after = watch.weights[at][place].double(), watch.weights[at + 1][place].double()
    return float((after - before).norm() / before.norm())


def check_frames(watch: Watch, seen: Seen, steps: list[int]) -> None:
    """Step numbers, losses and gradient norms are those of the loop; ``steps``: those with one."""
    assert [frame.step for frame in seen.frames] == steps
    skipped = {event.step for event in kinds(seen, "skipped_step")}
    losses = scalar(seen, "loss")
    assert sorted(losses) == list(range(len(losses)))
    taken = [step for step in losses if step not in skipped]
    expected = dict(zip(taken, watch.step_losses, strict=True))
    norms = dict(zip(taken, watch.norms, strict=True))
    np.testing.assert_allclose([losses[s] for s in taken], watch.step_losses, rtol=1e-5)
    np.testing.assert_allclose(seen["training/loss"], [expected[s] for s in steps], rtol=1e-5)
    np.testing.assert_allclose(seen["training/grad_norm"], [norms[s] for s in steps], rtol=1e-4)


def forward(model: torch.nn.Module, family: str) -> torch.Tensor:
    loss: torch.Tensor = model(**batch(family)).loss
    return loss
