"""Processes that survive what they run: a job that crashes or hangs costs its process only.

The executors of the standard library break as a whole when one process dies, and cannot end a
job that hangs.
"""

from __future__ import annotations

import multiprocessing
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnContext
from typing import Any, Generic, TypeVar

Job = TypeVar("Job")

START_SECONDS = 300.0
"""A new process imports torch and the models first; that does not count as silence."""


@dataclass(frozen=True)
class Message(Generic[Job]):
    """Something a job yielded."""

    job: Job
    content: Any


@dataclass(frozen=True)
class Lost(Generic[Job]):
    """The job's process died or fell silent for too long, and was replaced."""

    job: Job
    last: Any
    """What the job yielded last; None for nothing."""
    reason: str


@dataclass(frozen=True)
class _Ready:
    """The process has imported what it needs."""


@dataclass(frozen=True)
class _Finished:
    """The job came to its end."""


def _serve(connection: Connection, work: Callable[[Any], Iterable[Any]]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    try:
        while True:
            job = connection.recv()  # unpickling it imports the modules of the job
            connection.send(_Ready())
            for content in work(job):
                connection.send(content)
            connection.send(_Finished())
    except (EOFError, BrokenPipeError):  # the parent is gone
        return


@dataclass
class _Worker(Generic[Job]):
    context: SpawnContext
    work: Callable[[Job], Iterable[Any]]
    job: Job | None = None
    last: Any = None
    heard: float = field(default_factory=time.monotonic)
    ready: bool = False

    def __post_init__(self) -> None:
        self.connection, theirs = self.context.Pipe()
        self.process = self.context.Process(
            target=_serve, args=(theirs, self.work), daemon=True, name="corpus"
        )
        self.process.start()
        theirs.close()

    def start(self, job: Job) -> None:
        self.job, self.last, self.heard = job, None, time.monotonic()
        self.connection.send(job)

    def deadline(self, patience: float) -> float:
        """When its silence becomes too long, on the monotonic clock."""
        return self.heard + (patience if self.ready else START_SECONDS)

    def end(self) -> None:
        self.process.kill()
        self.process.join()
        self.connection.close()


def run(
    take: Callable[[], Job | None],
    work: Callable[[Job], Iterable[Any]],
    *,
    jobs: int,
    patience: float,
) -> Iterator[Message[Job] | Lost[Job]]:
    """Runs ``work(job)`` in ``jobs`` processes and yields what the jobs yield.

    ``take()`` gives the next job, None for none now; it is asked again whenever a process is
    idle, and all is over when none is busy and there is no job. ``work`` must be importable.
    A process silent for ``patience`` seconds is killed. Closing the iterator kills all.
    """
    context = multiprocessing.get_context("spawn")
    workers: list[_Worker[Job]] = []
    try:
        while True:
            _employ(workers, take, work, jobs, context)
            busy = [worker for worker in workers if worker.job is not None]
            if not busy:
                return
            deadline = min(worker.deadline(patience) for worker in busy)
            wait([w.connection for w in busy], timeout=max(0.0, deadline - time.monotonic()))
            for worker in busy:
                yield from _listen(worker, patience, workers)
    finally:
        for worker in workers:
            worker.end()


def _employ(
    workers: list[_Worker[Job]],
    take: Callable[[], Job | None],
    work: Callable[[Job], Iterable[Any]],
    jobs: int,
    context: SpawnContext,
) -> None:
    """Gives every idle process a job, starting processes up to ``jobs``."""
    while sum(worker.job is not None for worker in workers) < jobs:
        job = take()
        if job is None:
            return
        idle = next((worker for worker in workers if worker.job is None), None)
        if idle is None:
            idle = _Worker(context, work)
            workers.append(idle)
        try:
            idle.start(job)
        except OSError:  # it died while idle
            workers.remove(idle)
            idle.end()
            fresh = _Worker(context, work)
            workers.append(fresh)
            fresh.start(job)


def _listen(
    worker: _Worker[Job], patience: float, workers: list[_Worker[Job]]
) -> Iterator[Message[Job] | Lost[Job]]:
    """What the worker sent since; removes it where it died or hangs."""
    job = worker.job
    assert job is not None
    try:
        while worker.job is not None and worker.connection.poll():
            content = worker.connection.recv()
            worker.heard, worker.ready = time.monotonic(), True
            if isinstance(content, _Ready):
                continue
            if isinstance(content, _Finished):
                worker.job = None
            else:
                worker.last = content
                yield Message(job, content)
    except (EOFError, OSError):
        workers.remove(worker)
        worker.end()
        yield Lost(job, worker.last, f"the process ended with status {worker.process.exitcode}")
        return
    if worker.job is not None and time.monotonic() > worker.deadline(patience):
        workers.remove(worker)
        worker.end()
        yield Lost(job, worker.last, f"nothing was heard for {patience:.0f} s")
