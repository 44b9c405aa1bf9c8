"""Runs a case under the probe, and reads its trace as the shipped diagnosis does."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import torch

import probe
from diagnoser.contracts import ContractWatch, Firing
from diagnoser.crashes import read as read_crash
from diagnoser.diagnosis import Diagnosis
from diagnoser.engine import Engine
from diagnoser.features import RollingFeatures
from probe.schema import Event, Frame, Header
from probe.trace import load

if TYPE_CHECKING:
    from diagnoser.corpus.realworld.case import Case
    from diagnoser.weights import Trained

SEED = 1234
EVERY = {"training": 2, "generating": 1}
"""Which steps are sampled: every second one of a training, every forward of a generation."""


@dataclass(frozen=True)
class Answer:
    """What the diagnosis says of one run."""

    end: Diagnosis
    """Its state after the last frame."""
    ever: bool
    """Whether it called the run faulty at any frame."""
    firings: tuple[Firing, ...]
    """The contracts that fire at the end, the earliest in causal order first."""


def record(case: Case, fixed: bool, trace: Path) -> None:
    """Run one version from a fixed seed, recorded to ``trace``.

    An exception that the case's fault raises ends the run; that of a fixed version is raised.
    """
    torch.manual_seed(SEED)
    script = case.build(fixed)
    try:
        with probe.attach(
            script.model,
            script.optimizer,
            run=trace.stem,
            endpoint=False,
            trace=trace,
            every=EVERY[case.shown],
            budget=None,
        ):
            for _ in range(script.steps):
                script.step()
    except RuntimeError:
        if fixed:
            raise


def diagnose(trace: Path, weights: Trained | None = None) -> Answer:
    """The shipped diagnosis of a trace, frame by frame. Raises ``ValueError`` where the trace holds
    no header, ``OSError`` and ``TraceError`` where it cannot be read."""
    engine: Engine | None = None
    ever, last = False, None
    columns, watch = None, None
    for found in load(trace):
        if isinstance(found, Header):
            columns = RollingFeatures(found).columns
            if engine is None or watch is None:
                engine, watch = Engine(found, weights), ContractWatch(columns)
            else:
                engine.rebind(found)
                watch.rebind(columns)
        elif isinstance(found, Frame) and engine is not None and watch is not None:
            last = engine.update(found)
            watch.update(found)
            ever |= last.verdict == "faulty"
        elif isinstance(found, Event) and engine is not None:
            crash = read_crash(found)
            if crash is not None:
                last = msgspec.structs.replace(last or engine.diagnosis, crash=crash)
    if engine is None or watch is None:
        raise ValueError(f"{trace} holds no header: the run ended before its model was seen")
    return Answer(last or engine.diagnosis, ever, watch.firings())
