"""Runs a scenario: trains what the probe does not see, then each branch, recorded to a trace."""

from __future__ import annotations

import random
import time
import traceback
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import torch

import probe
from diagnoser import faults
from diagnoser.corpus.changes import CHANGES
from diagnoser.corpus.comparison import diverged, first_difference, frame_count
from diagnoser.corpus.manifest import Audit, Entry, trace_path
from diagnoser.corpus.plan import Branch, FaultPlan, Scenario
from diagnoser.corpus.training import Training, train

FEWEST_FRAMES = 5
DIVERGED = "the training diverged without any fault"


@dataclass(frozen=True)
class Order:
    """A scenario to run: where to, without which branches, and until when."""

    scenario: Scenario
    folder: Path
    settled: frozenset[str] = frozenset()
    stop_at: float = float("inf")
    """Unix time after which no further branch is begun."""
    most: int | None = None
    """So many runs are kept, and no further branch is begun."""


@dataclass(frozen=True)
class Begun:
    """A branch is under way: where its process dies, this one is to blame."""

    id: str


def quiet() -> None:
    """Small models on one thread; denormals, which dead weights breed, are slow and pointless."""
    import transformers

    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    transformers.logging.set_verbosity_error()


def _draw(plan: FaultPlan, training: Training) -> faults.Fault:
    recipe = training.recipe
    return faults.draw(
        training.model,
        random.Random(plan.seed),
        operator=plan.operator,
        optimizer=training.optimizer,
        length=recipe.length,
        clip=recipe.clip,
    )


def record(
    training: Training,
    scenario: Scenario,
    path: Path,
    fault: faults.Fault | None = None,
    change: str | None = None,
) -> None:
    """Trains the scenario's steps under the probe; the fault or change comes at its step."""

    def intervene(until: ExitStack) -> None:
        if fault is not None:
            until.enter_context(faults.inject(training.model, training.optimizer, fault))
        if change is not None:
            CHANGES[change](training)

    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)  # left by a run that was cut short
    with ExitStack() as until_done:
        if scenario.inject_step == 0:
            intervene(until_done)
        until_done.enter_context(
            probe.attach(
                training.model,
                training.optimizer,
                run=path.stem,
                endpoint=False,
                trace=path,
                every=scenario.interval,
                budget=None,
            )
        )
        if scenario.inject_step > 0:
            for _ in train(training, scenario.inject_step):
                pass
            intervene(until_done)
        for _ in train(training, scenario.steps - scenario.inject_step):
            pass


def _audit(scenario: Scenario, branch: Branch, event: str, reason: str) -> Audit:
    plan = branch.fault
    return Audit(
        id=branch.id,
        event=event,  # type: ignore[arg-type]
        reason=reason,
        group=scenario.group,
        operator=plan.operator if plan else None,
        category=plan.category if plan else None,
        root_cause=plan.root_cause if plan else None,
    )


def lost(order: Order, run: str | None, reason: str) -> list[Audit]:
    """Audit of a branch whose process died; of all remaining ones where none had begun."""
    return [
        _audit(order.scenario, branch, "lost", reason)
        for branch in order.scenario.branches
        if branch.id not in order.settled and run in (None, branch.id)
    ]


def _run_branch(
    scenario: Scenario, branch: Branch, training: Training, folder: Path
) -> Entry | Audit:
    path = trace_path(folder, branch.id)
    fault: faults.Fault | None = None
    if branch.fault is not None:
        try:
            fault = _draw(branch.fault, training)
        except ValueError as error:
            return _audit(scenario, branch, "unfit", str(error))
    record(training, scenario, path, fault, branch.change)
    frames = frame_count(path)
    if frames < FEWEST_FRAMES:
        path.unlink(missing_ok=True)
        return _audit(scenario, branch, "crashed", f"only {frames} frames in the trace")
    if branch is scenario.branches[0] and diverged(path):
        path.unlink(missing_ok=True)
        return _audit(scenario, branch, "unfit", DIVERGED)
    details: dict[str, Any] = (
        {
            "operator": fault.operator,
            "category": fault.category,
            "root_cause": fault.root_cause,
            "layers": fault.layers,
            "parameter": fault.parameter,
            "value": fault.value,
        }
        if fault
        else {}
    )
    if fault is not None:
        clean = trace_path(folder, scenario.branches[0].id)
        if first_difference(clean, path) is None:
            path.unlink(missing_ok=True)
            audit = _audit(scenario, branch, "discarded", "same as the clean run")
            return msgspec.structs.replace(audit, **details)
    recipe, size = scenario.recipe, scenario.recipe.size
    return Entry(
        id=branch.id,
        group=scenario.group,
        scenario=scenario.number,
        family=recipe.family,
        task=recipe.task,
        size=f"{size.layers}x{size.width}h{size.heads}/{size.kv_heads}v{size.vocabulary}",
        seed=recipe.seed,
        interval=scenario.interval,
        steps=scenario.steps,
        unseen_steps=scenario.unseen_steps,
        kind=branch.kind,
        change=branch.change,
        start_step=scenario.inject_step if fault or branch.change else None,
        recipe=recipe.description(),
        **details,
    )


def run(order: Order) -> Iterator[Begun | Entry | Audit]:
    """Runs the branches that are not settled; says which one begins and how each ended.

    The clean branch comes first: the others are compared with its trace, which on a resumed
    build lies there already.
    """
    scenario = order.scenario
    wanted = [branch for branch in scenario.branches if branch.id not in order.settled]
    if not wanted:
        return
    quiet()
    yield Begun(wanted[0].id)
    try:
        past = Training(scenario.recipe)
        for _ in train(past, scenario.unseen_steps):
            pass
    except Exception:
        for branch in wanted:
            yield _audit(scenario, branch, "crashed", traceback.format_exc(limit=-4))
        return
    state = torch.get_rng_state()
    kept = 0
    for branch in wanted:
        if time.time() > order.stop_at or kept == order.most:
            return
        yield Begun(branch.id)
        try:
            torch.set_rng_state(state)
            line = _run_branch(scenario, branch, past.fork(), order.folder)
        except Exception:
            line = _audit(scenario, branch, "crashed", traceback.format_exc(limit=-4))
        kept += isinstance(line, Entry)
        yield line
        if isinstance(line, Audit) and line.reason == DIVERGED:
            yield from (_audit(scenario, other, "unfit", DIVERGED) for other in wanted[1:])
            return
