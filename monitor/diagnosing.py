"""The thread that runs the diagnosis over the frames, behind the screen."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol

from msgspec import Struct
from msgspec.structs import replace

from diagnoser.crashes import Crash
from diagnoser.crashes import read as read_crash
from diagnoser.diagnosis import Diagnosis
from probe.schema import Event, Frame, Header, Record

STOP_SECONDS = 5.0
MAX_WAITING = 4000
"""Frames of the run watched that wait for the diagnosis before it goes over fewer of them."""
Phase = Literal["loading", "ready", "failed", "off"]


class EngineLike(Protocol):
    """What the thread needs of ``diagnoser.engine.Engine``."""

    def update(self, frame: Frame) -> Diagnosis: ...

    def rebind(self, header: Header) -> None:
        """Go on under a later header of the same run, with what was learned."""


EngineFactory = Callable[[Header], EngineLike]


class DiagnosisState(Struct, frozen=True):
    """What the diagnosis pane shows."""

    phase: Phase = "loading"
    diagnosis: Diagnosis | None = None
    error: str = ""
    crash: Crash | None = None
    """The exception that ended the run."""


def load_engine() -> EngineFactory:
    """The product's engine. Imports torch: call it in a thread, after the first screen."""
    import torch

    from diagnoser.engine import Engine

    # The network is small: more threads would only wait for each other, busily, on the cores
    # that the training needs.
    torch.set_num_threads(1)
    factory: Any = Engine
    return factory


class Diagnosing:
    """Feeds every frame to an engine in order.

    The header of another run starts a new engine; a later header of the same run binds the engine
    there is to it. An error of the engine ends the diagnosis of this header, never the monitor.
    ``on_news`` is called in the thread when there is something to take.
    """

    def __init__(
        self,
        factory: EngineFactory | None = None,
        on_news: Callable[[], None] = lambda: None,
        most: int = MAX_WAITING,
    ) -> None:
        """``most``: frames that wait before it goes over fewer of them."""
        self._factory = factory
        self._on_news = on_news
        self._most = most
        self._header: Header | None = None
        self._found: list[Diagnosis | None] = []
        self._pending: deque[Header | Frame] = deque()
        self._changed = threading.Condition()
        self._stopping = False
        self._busy = False
        self._held = False
        self._newest: int | None = None
        self._engine: EngineLike | None = None
        self._state = DiagnosisState()
        self._generation = 0
        self._thread = threading.Thread(target=self._run, name="monitor-diagnosis", daemon=True)

    def start(self) -> None:
        """Once; further calls do nothing."""
        if self._thread.ident is None and not self._stopping:
            self._thread.start()

    def stop(self) -> None:
        """Ends after the frame in hand, and waits for that. For an engine that is being loaded it
        does not: who leaves at once would look at nothing for seconds."""
        with self._changed:
            self._stopping = True
            loading = self._busy and self._engine is None
            self._changed.notify_all()
        waiting = self._thread.is_alive() and threading.current_thread() is not self._thread
        if waiting and not loading:
            self._thread.join(STOP_SECONDS)

    def hold(self, held: bool) -> None:
        """Wait while a backlog is being read: what is seen first comes first."""
        with self._changed:
            if held != self._held:
                self._held = held
                self._changed.notify_all()

    @property
    def factory(self) -> EngineFactory | None:
        """What makes the engines; None until the product's is loaded."""
        return self._factory

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

    @property
    def newest(self) -> int | None:
        """Step of the newest frame fed of this run; None before the first."""
        with self._changed:
            return self._newest

    def take(self) -> list[Diagnosis | None]:
        """The diagnoses since the last time, in order; None where a new run began."""
        with self._changed:
            found, self._found = self._found, []
            return found

    def feed(self, records: Sequence[Record]) -> None:
        """Headers, frames and crashes are taken in, other records ignored.

        A header that starts anew drops what waits; one of another rank of the run is ignored.
        """
        with self._changed:
            for record in records:
                if isinstance(record, Header):
                    if of_another_rank(record, self._header):
                        continue
                    if not _continues(record, self._header):
                        self._pending.clear()
                        self._generation += 1
                        self._state = DiagnosisState(phase="loading")
                        self._found = [None]
                        self._newest = None
                    self._header = record
                    self._pending.append(record)
                elif isinstance(record, Frame):
                    self._pending.append(record)
                    self._newest = record.step
                    if len(self._pending) > self._most:
                        self._thin()
                elif isinstance(record, Event):
                    crash = read_crash(record)
                    if crash is not None:
                        self._state = replace(self._state, crash=crash)
            self._changed.notify_all()

    def _thin(self) -> None:
        """Give up every second waiting frame: a long trace is diagnosed at fewer of its samples.

        The features are over steps, whatever the interval; a verdict is not sooner for more."""
        kept = [r for n, r in enumerate(self._pending) if isinstance(r, Header) or n % 2 == 0]
        self._pending = deque(kept)

    def _run(self) -> None:
        bound: Header | None = None
        while True:
            with self._changed:
                self._changed.wait_for(lambda: (self._pending and not self._held) or self._stopping)
                if self._stopping:
                    return
                record, generation = self._pending.popleft(), self._generation
                self._busy = True
            state = self._advance(record, bound)
            bound = record if isinstance(record, Header) else bound
            with self._changed:
                self._busy = False
                if state is not None and generation == self._generation:
                    self._state = replace(state, crash=self._state.crash)
                    if state.phase == "ready" and state.diagnosis and isinstance(record, Frame):
                        self._found.append(state.diagnosis)
            self._on_news()

    def _advance(self, record: Header | Frame, bound: Header | None) -> DiagnosisState | None:
        try:
            if isinstance(record, Header):
                return self._begin(record, bound)
            if self._engine is None:
                return None
            return DiagnosisState("ready", self._engine.update(record))
        except Exception as error:  # shown in the pane; the monitor goes on without a diagnosis
            self._engine = None
            first_line = (str(error) or type(error).__name__).splitlines()[0]
            return DiagnosisState("failed", self.state.diagnosis, first_line)

    def _begin(self, header: Header, bound: Header | None) -> DiagnosisState:
        if self._engine is not None and _continues(header, bound):
            self._engine.rebind(header)
            return DiagnosisState("ready", self.state.diagnosis)
        self._engine = None
        if self._factory is None:
            self._factory = load_engine()
        self._engine = self._factory(header)
        return DiagnosisState("ready")


def of_another_rank(header: Header, known: Header | None) -> bool:
    """A header of the run that is being diagnosed, of a rank that is not: the rank whose header
    came first stands for the run."""
    return known is not None and header.run == known.run and header.rank != known.rank


def _continues(header: Header, known: Header | None) -> bool:
    """A later header of the run that is being diagnosed."""
    return known is not None and header.run == known.run and header.revision > known.revision
