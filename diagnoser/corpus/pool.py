"""Jobs in parallel by joblib: on this machine, or with another backend on a cluster.

    with joblib.parallel_config(backend="dask"):
        build(folder, jobs=64)

A job runs in a child of joblib's worker (:mod:`diagnoser.corpus.child`). Where a worker itself
dies, joblib gives up all that is under way without telling which job was to blame, and can end
none that hangs; where the child dies, the worker tells which job it was and goes on.
"""

from __future__ import annotations

import os
import pickle
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import BrokenExecutor
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any, Generic, TypeVar

from diagnoser.corpus import CorpusError
from diagnoser.corpus.child import Child, Crash

Job = TypeVar("Job")


@dataclass(frozen=True)
class Outcome(Generic[Job]):
    """A job that ended, well or badly."""

    job: Job
    contents: tuple[Any, ...]
    """What it yielded."""
    failure: str | None = None
    """Why its process was lost; None where the job came to its end."""


_own = threading.local()
"""``child`` of this thread: a worker of joblib may be a process or, on a cluster, a thread."""


def _in_child(
    ticket: int, call: bytes, patience: float, owner: int
) -> tuple[int, list[bytes], str | None]:
    """A job, in the worker. Everything stays pickled: the worker imports nothing heavy. ``owner``:
    the process that wants it."""
    if getattr(_own, "child", None) is None:
        _own.child = Child()
    try:
        return ticket, _own.child.run(call, patience, owner), None
    except Crash as crash:
        _own.child = None
        reason, found = crash.args
        return ticket, found, reason


class _Jobs(Generic[Job]):
    """The jobs handed out and not back yet."""

    def __init__(self, take: Callable[[], Job | None]) -> None:
        self._take = take
        self._tickets = count()
        self.under_way: dict[int, Job] = {}
        self.suspects: deque[Job] = deque()
        """Were under way when a worker died: one of them may be to blame."""
        self.error: Exception | None = None
        """What ``take`` raised: joblib asks for jobs in threads of its own."""

    def next(self, alone: bool) -> tuple[int, Job] | None:
        """The next job and its ticket. ``alone``: only those that may have ended a worker."""
        if alone:
            job = self.suspects.popleft() if self.suspects else None
        else:
            try:
                job = self._take()
            except Exception as error:
                self.error, job = error, None
        if job is None:
            return None
        ticket = next(self._tickets)
        self.under_way[ticket] = job
        return ticket, job


def run(
    take: Callable[[], Job | None],
    work: Callable[[Job], Iterable[Any]],
    *,
    jobs: int,
    patience: float,
) -> Generator[Outcome[Job]]:
    """Runs ``work(job)``, ``jobs`` at a time, and yields how each ended, as they end.

    ``take()`` gives the next job, None for none now; it is asked again whenever a worker is
    idle, and all is over when none is busy and there is no job. ``work`` must be importable.
    A process silent for ``patience`` seconds is killed. Where a worker dies, what was under way is
    run again, one by one, and what is under way when one dies again is lost.
    Closing the iterator kills all.
    Raises :class:`CorpusError` without joblib.
    """
    try:
        from joblib import Parallel, delayed
    except ImportError:
        raise CorpusError("this needs joblib: pip install 'defaultpp-monitor[train]'") from None
    queue = _Jobs(take)
    found = True
    try:
        while found or queue.suspects:
            found, alone = False, bool(queue.suspects)
            parallel = Parallel(
                jobs,
                return_as="generator_unordered",
                pre_dispatch=1 if alone else jobs,
                batch_size=1,
            )
            calls = (
                delayed(_in_child)(ticket, pickle.dumps((work, job)), patience, os.getpid())
                for ticket, job in iter(partial(queue.next, alone), None)
            )
            try:
                for ticket, contents, failure in parallel(calls):
                    found = True
                    yielded = tuple(pickle.loads(content) for content in contents)
                    yield Outcome(queue.under_way.pop(ticket), yielded, failure)
            except BrokenExecutor as error:
                found = True
                lost = list(queue.under_way.values())
                queue.under_way.clear()
                if alone:
                    for job in lost:
                        yield Outcome(job, (), f"joblib's worker died: {error}")
                else:
                    queue.suspects.extend(lost)
            if queue.error is not None:
                raise queue.error
    finally:
        _own.child = None  # of this process, where joblib needed no other
