"""The probe's one background thread: it numbers, stores and publishes records, and answers."""

from __future__ import annotations

import atexit
import contextlib
import itertools
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal

import msgspec
import zmq

from probe import registry
from probe.answers import Action, Answers
from probe.backlog import DEFAULT_CAP_BYTES as BACKLOG_BYTES
from probe.endpoint import CurveKeys, choose
from probe.forks import Birthplace
from probe.registry import RunEntry
from probe.schema import (
    Done,
    End,
    Header,
    Heartbeat,
    Record,
    SchemaError,
    encode,
)
from probe.sockets import RunSockets
from probe.status import State, Status
from probe.stream import Stream
from probe.trace_writer import DEFAULT_CAP_BYTES as TRACE_BYTES
from probe.trace_writer import TraceWriter
from probe.wake import Wake

HEARTBEAT_SECONDS = 1.0
LOOK_SECONDS = 0.25
"""How long a record may wait for the thread, which looks by itself: waking it would cost the
training thread a system call, and the interpreter's lock, at every step."""
END_LINGER_MS = 250
"""How long the end of the stream may take to leave the process."""
_ROUND = 64
_ROUND_SECONDS = 0.1
"""Drafts carried out, and time spent on them, between two looks at the sockets."""

Draft = Callable[[int], Record | None]


class Publisher:
    """Takes records from the training thread and does everything slow with them elsewhere.

    One daemon thread owns the sockets, the trace, the backlog and the registry entry. Nothing here
    raises into the training thread or makes it wait, except :meth:`close`, for at most its timeout.

    ``entry``: from :func:`probe.registry.new_entry`; endpoints and trace path are filled in.
    ``endpoint``: see :func:`probe.endpoint.choose`; False: no sockets, and not listed either.
    ``on_control`` (which must not wait), ``status`` and ``on_error`` are called in the thread.
    ``on_error`` gets what the drafts raise, and once each a TraceError, EndpointError,
    DirectoryError or OSError when the trace, the sockets or the registry entry could not be had:
    the rest goes on without. A process forked from this one keeps a publisher that does nothing.
    """

    def __init__(
        self,
        entry: RunEntry,
        *,
        on_control: Callable[[Action], Done],
        status: Callable[[], Status],
        on_error: Callable[[BaseException], None],
        endpoint: str | Literal[False] | None = None,
        keys: CurveKeys | None = None,
        trace_path: Path | None = None,
        queue_size: int = 1024,
        backlog_bytes: int = BACKLOG_BYTES,
        trace_bytes: int = TRACE_BYTES,
    ) -> None:
        self.dropped = 0
        """Records not taken because the queue was full."""
        self.failed: BaseException | None = None
        """What ended the thread before it was asked to end."""
        self._entry = entry
        self._status = status
        self._on_error = on_error
        self._endpoint, self._keys = endpoint, keys
        self._trace_path, self._trace_bytes = trace_path, trace_bytes
        self._queue: deque[Draft] = deque()
        self._queue_size = queue_size
        self._drops = itertools.count(1)
        self._stream = Stream(backlog_bytes)
        self._answers = Answers(
            entry.run, self._stream, on_control, self._safe_status, self._report, entry.world_size
        )
        self._unreadable = 0
        self._poller = zmq.Poller()
        self._wake: Wake | None = None
        self._thread: threading.Thread | None = None
        self._birthplace = Birthplace()  # sockets, files and the thread stay there
        self._opened = threading.Event()
        self._closing = self._leaving = False
        self._reason = ""
        self._drain_until = float("inf")
        self._beat_due = self._refresh_due = 0.0

    @property
    def entry(self) -> RunEntry:
        """The registry entry; endpoints are filled in once :meth:`wait_opened` returned True."""
        return self._entry

    @property
    def header(self) -> Header | None:
        """The latest header that passed through."""
        return self._stream.header

    @property
    def rejected(self) -> int:
        """Unreadable requests and peers so far."""
        sockets = self._stream.sockets
        return self._unreadable + (0 if sockets is None else sockets.rejected)

    def start(self) -> None:
        """Start the thread, which opens the trace and the sockets and registers the run."""
        if self._birthplace.left or self._thread is not None or self._closing:
            return
        try:
            self._wake = Wake()
            self._poller.register(self._wake.fileno(), zmq.POLLIN)
            thread = threading.Thread(target=self._run, name="defaultpp-probe", daemon=True)
            thread.start()
        except (OSError, RuntimeError) as error:
            self._closing = True
            self._report(error)
            return
        self._thread = thread
        atexit.register(self.close, "the training process ended")

    def wait_opened(self, timeout: float | None = None) -> bool:
        """Wait until trace and sockets are open, or known not to be. For tests and start-up."""
        return self._opened.wait(timeout)

    def submit(self, draft: Draft, soon: bool = False) -> bool:
        """Queue a record to be made in the thread; False if it was dropped. Never waits.

        ``soon`` wakes the thread, which else looks by itself every :data:`LOOK_SECONDS`.

        ``draft`` is called with the record's sequence number. It may wait for a device; it may
        return None, which uses no number; what it raises goes to ``on_error``.
        """
        if self._closing or self._birthplace.left:
            return False
        if len(self._queue) >= self._queue_size:
            self.dropped = next(self._drops)  # counting this way needs no lock
            return False
        self._queue.append(draft)
        if self._wake is not None and (soon or 2 * len(self._queue) >= self._queue_size):
            self._wake.signal()
        return True

    def close(self, reason: str = "closed", timeout: float = 5.0, wait: bool = True) -> None:
        """Publish what is queued, then the end of the stream, and let go of everything.

        Takes, and with ``wait`` waits, at most ``timeout`` seconds; what is not drained by then is
        given up. May be called again, at exit, in a forked process, and from the thread itself
        (which then only begins).
        """
        if self._birthplace.left:
            return
        if not self._closing:
            self._reason = reason
            self._drain_until = time.monotonic() + 0.8 * timeout
            self._closing = True
            if self._wake is not None:
                self._wake.signal()
        thread = self._thread
        if not wait or thread is None or thread is threading.current_thread():
            return
        thread.join(timeout)
        if not thread.is_alive():
            atexit.unregister(self.close)
            if self._wake is not None:
                self._wake.close()

    def leave(self) -> None:
        """Begin to close and do not wait: nobody is left who could."""
        self._leaving = True
        self.close("the model is gone", wait=False)

    def _run(self) -> None:
        try:
            self._open()
            while not self._closing:
                self._turn()
            self._drain(until=self._drain_until)
            self._end()
        except BaseException as error:
            self._closing = True
            self._report(error)
            self.failed = error.with_traceback(None)
        finally:
            self._let_go()

    def _open(self) -> None:
        try:
            if self._trace_path is not None:
                trace = TraceWriter(self._trace_path, self._trace_bytes, self._report)
                self._stream.trace = trace
                if trace.storing:
                    self._entry = msgspec.structs.replace(
                        self._entry, trace=str(self._trace_path.absolute())
                    )
            if self._endpoint is False:
                return
            self._listen(self._endpoint)
            try:
                registry.register(self._entry)
            except Exception as error:
                self._report(error)
            self._refresh_due = time.monotonic() + registry.REFRESH_SECONDS
        finally:
            self._opened.set()

    def _listen(self, endpoint: str | None) -> None:
        try:
            sockets = RunSockets(choose(endpoint, self._keys))
        except Exception as error:
            self._report(error)
            return
        self._stream.sockets = sockets
        for socket in sockets.pollables():
            self._poller.register(socket, zmq.POLLIN)
        self._entry = msgspec.structs.replace(
            self._entry,
            publish=sockets.publish_endpoint,
            control=sockets.control_endpoint,
            key="" if sockets.keys is None else sockets.keys.access_key,
        )

    def _turn(self) -> None:
        """Wait for something to do, do a bounded amount of it."""
        now = time.monotonic()
        deadline = self._answers.deadline
        due = min(self._beat_due, now + LOOK_SECONDS)
        due = due if deadline is None else min(due, deadline)
        wait_ms = 0 if self._queue else max(0, math.ceil(1000 * (due - now)))
        if self._poller.poll(wait_ms):
            assert self._wake is not None
            self._wake.clear()
        self._drain(rounds=_ROUND, until=time.monotonic() + _ROUND_SECONDS)
        self._serve()
        self._answers.end_lapsed_pause()
        now = time.monotonic()
        if now >= self._beat_due:
            self._beat_due = now + HEARTBEAT_SECONDS
            self._beat()
        if now >= self._refresh_due:
            self._refresh_due = now + registry.REFRESH_SECONDS
            try:
                registry.refresh(self._entry)
            except Exception as error:
                self._report(error)

    def _drain(self, rounds: int | None = None, until: float = float("inf")) -> None:
        for _ in itertools.count() if rounds is None else range(rounds):
            if not self._queue:
                return
            self._carry_out(self._queue.popleft())
            if time.monotonic() > until:
                return

    def _carry_out(self, draft: Draft) -> None:
        try:
            record = draft(self._stream.ring.next_seq)
            if record is not None:
                self._stream.take(record)
        except Exception as error:
            self._report(error)

    def _serve(self) -> None:
        sockets = self._stream.sockets
        if sockets is None:
            return
        for request in sockets.requests():
            try:
                reply = encode(self._answers.answer(request[2]))
            except SchemaError:
                self._unreadable += 1
                continue
            sockets.reply(request, reply)

    def _beat(self, state: State | None = None) -> None:
        if self._stream.sockets is None:
            return
        status = self._safe_status()
        beat = Heartbeat(
            run=self._entry.run,
            last_seq=self._stream.ring.next_seq - 1,
            step=status.step,
            state=state or status.state,
            dropped=self.dropped + status.dropped,
            rejected=self.rejected,
            overhead=status.overhead,
        )
        self._stream.sockets.publish(encode(beat))

    def _end(self) -> None:
        self._stream.take(
            End(
                seq=self._stream.ring.next_seq,
                rank=self._entry.rank,
                step=self._safe_status().step,
                time=time.time(),
                reason=self._reason,
            )
        )
        self._beat(state="closed")

    def _let_go(self) -> None:
        """Whatever happened before: leave the training running and nothing behind."""
        releases = (
            self._answers.end_pause,
            partial(registry.unregister, self._entry),
            partial(self._stream.close, END_LINGER_MS),
        )
        for release in releases:
            try:
                release()
            except BaseException as error:
                self._report(error)
        self._queue.clear()
        # Both call back here; the records still held would wait for the cycle collector with us.
        del self._answers
        self._stream.trace = None
        if self._leaving:
            atexit.unregister(self.close)
            if self._wake is not None:
                self._wake.close()

    def _safe_status(self) -> Status:
        try:
            return self._status()
        except Exception as error:
            self._report(error)
            return Status(state="off")

    def _report(self, error: BaseException) -> None:
        with contextlib.suppress(BaseException):
            self._on_error(error)


__all__ = ["Action", "Draft", "Publisher", "Status"]
