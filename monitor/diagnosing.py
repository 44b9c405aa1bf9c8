"""The thread that runs the diagnosis over the frames, behind the screen."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

from diagnoser.crashes import Crash
from diagnoser.crashes import read as read_crash
from diagnoser.diagnosis import Diagnosis
from probe.schema import Event, Frame, Header, Record

STOP_SECONDS = 5.0
Phase = Literal["loading", "ready", "failed", "off"]


class EngineLike(Protocol):
    """What the thread needs of ``diagnoser.engine.Engine``."""

    def update(self, frame: Frame) -> Diagnosis: ...


EngineFactory = Callable[[Header], EngineLike]


@dataclass(frozen=True)
class DiagnosisState:
    """What the diagnosis pane shows."""

    phase: Phase = "loading"
    diagnosis: Diagnosis | None = None
    error: str = ""
    crash: Crash | None = None
    """The exception that ended the run."""


def load_engine() -> EngineFactory:
    """The product's engine. Imports torch: call it in a thread, after the first screen."""
    from diagnoser.engine import Engine

    factory: Any = Engine
    return factory


class Diagnosing:
    """Feeds every frame to an engine in order; only the newest diagnosis is kept.

    A new header starts a new engine. An error of the engine ends the diagnosis of this header,
    never the monitor.
    """

    def __init__(self, factory: EngineFactory | None = None) -> None:
        self._factory = factory
        self._pending: deque[Header | Frame] = deque()
        self._changed = threading.Condition()
        self._stopping = False
        self._busy = False
        self._engine: EngineLike | None = None
        self._state = DiagnosisState()
        self._generation = 0
        self._thread = threading.Thread(target=self._run, name="monitor-diagnosis", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ends after the frame in hand, and waits for that: torch aborts a process that ends
        while one of its threads still computes. Loading torch may take the whole wait."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join(STOP_SECONDS)

    @property
    def state(self) -> DiagnosisState:
        """The newest state; the same object until something changed."""
        with self._changed:
            return self._state

    @property
    def idle(self) -> bool:
        """Every frame fed so far has been seen."""
        with self._changed:
            return not self._pending and not self._busy

    def feed(self, records: Sequence[Record]) -> None:
        """Headers, frames and crashes are taken in, the rest ignored. A header drops what waits."""
        with self._changed:
            for record in records:
                if isinstance(record, Header):
                    self._pending.clear()
                    self._generation += 1
                    self._state = DiagnosisState(phase="loading")
                    self._pending.append(record)
                elif isinstance(record, Frame):
                    self._pending.append(record)
                elif isinstance(record, Event):
                    crash = read_crash(record)
                    if crash is not None:
                        self._state = replace(self._state, crash=crash)
            self._changed.notify_all()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._busy = False
                self._changed.wait_for(lambda: self._pending or self._stopping)
                if self._stopping:
                    return
                record, generation = self._pending.popleft(), self._generation
                self._busy = True
            state = self._advance(record)
            with self._changed:
                if state is not None and generation == self._generation:
                    self._state = replace(state, crash=self._state.crash)

    def _advance(self, record: Header | Frame) -> DiagnosisState | None:
        try:
            if isinstance(record, Header):
                self._engine = None
                if self._factory is None:
                    self._factory = load_engine()
                self._engine = self._factory(record)
                return DiagnosisState("ready")
            if self._engine is None:
                return None
            return DiagnosisState("ready", self._engine.update(record))
        except Exception as error:  # shown in the pane; the monitor goes on without a diagnosis
            self._engine = None
            first_line = (str(error) or type(error).__name__).splitlines()[0]
            return DiagnosisState("failed", self.state.diagnosis, first_line)
