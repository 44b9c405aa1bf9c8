"""The reading side of a live run: history first, then what follows, each record exactly once.

A :class:`RunClient` says hello, has subscribed before it asks for the backlog so that nothing falls
between the two, notices gaps by their numbers (also by the heartbeat's), and asks for them again.
A run that is gone is asked once more: its transport may have its trace (:mod:`probe.remains`).
"""

from __future__ import annotations

import contextlib
import itertools
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from concurrent.futures import TimeoutError as NotYet

import zmq

from probe.schema import (
    Backlog,
    BacklogPart,
    End,
    Header,
    Heartbeat,
    Hello,
    Record,
    Reply,
    Request,
    SchemaError,
    Welcome,
    decode_published,
    decode_record,
    decode_reply,
    encode,
)
from probe.sequence import Sequencer
from probe.transport import Transport

RETRY_SECONDS = 2.0
"""A request without an answer is sent again after this long."""
BACKOFF_SECONDS = 0.5
"""Wait before asking again for records that the run did not have yet."""
REMAINS_SECONDS = 10.0
"""How long a run that is gone is waited for: its trace may have to be read first."""
READY_LIMIT = 20_000
"""Undelivered records held here; beyond this nothing more is taken from the sockets."""


class RunClient:
    """Follows one run over a transport.

    :meth:`read` and :meth:`request` may be called from different threads. ``is_alive`` says whether
    the run's process still exists, where that can be known.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        is_alive: Callable[[], bool] | None = None,
        name: str = "defaultpp-monitor",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.welcome: Welcome | None = None
        self.header: Header | None = None
        self.end: End | None = None
        self.heartbeat: Heartbeat | None = None
        self.ignored = 0
        """Unreadable messages so far."""
        self.gone = False
        """The run's process no longer exists, and all it sent or left in its trace was read."""
        self.replaced = False
        """Another run answers at this address."""
        self._transport = transport
        self._is_alive = is_alive
        self._name = name
        self._clock = clock
        self._sequence: Sequencer[Record] = Sequencer()
        self._ready: deque[Record] = deque()
        self._numbers = itertools.count(1)
        self._waiting: dict[bytes, Future[Reply]] = {}
        self._outbox: deque[tuple[bytes, bytes]] = deque()
        self._hello_id = b""
        self._backlog_id = b""
        self._backlog_due = 0.0
        self._backlog_sent = 0.0
        self._hello_due = 0.0
        self._heard = clock()
        self._checked = clock()
        self._died: float | None = None
        self._turn = threading.Lock()
        self._closing = threading.Event()
        self._wake_in, self._wake_out = socket.socketpair()
        self._wake_in.setblocking(False)
        self._wake_out.setblocking(False)
        self._poller = zmq.Poller()
        self._poller.register(self._wake_in.fileno(), zmq.POLLIN)
        for pollable in transport.pollables():
            self._poller.register(pollable, zmq.POLLIN)

    @property
    def silence(self) -> float:
        """Seconds since anything was heard from the run."""
        return self._clock() - self._heard

    @property
    def broken(self) -> str | None:
        """Why the connection is over, where it is (a bridge that ended)."""
        return self._transport.closed

    @property
    def state(self) -> str:
        """The training's own state as last heard; empty before the first word."""
        if self.heartbeat is not None:
            return self.heartbeat.state
        return self.welcome.state if self.welcome is not None else ""

    @property
    def next_seq(self) -> int:
        """Number of the record that comes next; all before it were handed on or given up."""
        return self._sequence.next_seq

    @property
    def lost(self) -> int:
        """Records that the run no longer held when they were asked for."""
        return self._sequence.lost

    def read(self, limit: int = 500, timeout: float = 0.25) -> list[Record]:
        """Up to ``limit`` records in stream order; waits at most ``timeout`` seconds for one."""
        deadline = self._clock() + timeout
        with self._turn:
            while not self._closing.is_set():
                self._turn_once(0.0)
                if self._ready or self.gone or self.broken:
                    break
                remaining = deadline - self._clock()
                if remaining <= 0:
                    break
                self._turn_once(min(remaining, 0.25))
            records = [self._ready.popleft() for _ in range(min(limit, len(self._ready)))]
        if not records and (self.gone or self.broken):
            # Nothing can come any more: a caller that goes on reading must not spin.
            self._closing.wait(timeout)
        return records

    def request(self, message: Request, timeout: float = 3.0) -> Reply | None:
        """Send one request and wait for its reply; None where none came in time."""
        answer: Future[Reply] = Future()
        number = self._next_id()
        self._waiting[number] = answer
        self._outbox.append((number, encode(message)))
        self._wake()
        deadline = self._clock() + timeout
        try:
            while self._clock() < deadline and not self._closing.is_set():
                # Whoever holds the turn reads the sockets; without a reader it is this thread.
                if self._turn.acquire(blocking=False):
                    try:
                        self._turn_once(0.02 if not answer.done() else 0.0)
                    finally:
                        self._turn.release()
                with contextlib.suppress(NotYet, CancelledError):
                    return answer.result(timeout=0.02)
            return None
        finally:
            self._waiting.pop(number, None)

    def close(self) -> None:
        """Let go of the sockets. May be called twice."""
        if self._closing.is_set():
            return
        self._closing.set()
        self._wake()
        with self._turn:
            self._transport.close()
            self._wake_in.close()
            self._wake_out.close()

    def _turn_once(self, wait: float) -> None:
        """Send what is due, wait up to ``wait`` seconds, take in what came."""
        if self._closing.is_set():
            return
        self._send_due()
        if wait > 0:
            self._poller.poll(int(wait * 1000) + 1)
        with contextlib.suppress(BlockingIOError):
            while self._wake_in.recv(4096):
                pass
        if len(self._ready) < READY_LIMIT:
            arrivals = self._transport.receive(1000)
            told = [self._take(number, payload) for number, payload in arrivals]
            self._look_for_death(quiet=not any(told))
        self._send_due()

    def _send_due(self) -> None:
        while self._outbox:
            self._transport.request(*self._outbox.popleft())
        now = self._clock()
        if self.welcome is None and self._died is None:
            if now >= self._hello_due:
                self._hello_id = self._next_id()
                self._hello_due = now + RETRY_SECONDS
                self._transport.request(self._hello_id, encode(Hello(client=self._name)))
            return
        gap: tuple[int, int | None] | None = self._sequence.missing()
        answered = not self._backlog_id or now - self._backlog_sent > RETRY_SECONDS
        if self._died is not None:
            # What it sent last may be unheard of as well.
            gap = None if self.gone else (self._sequence.next_seq, None)
            answered = not self._backlog_id
        if gap and answered and now >= self._backlog_due and len(self._ready) < READY_LIMIT:
            self._backlog_id = self._next_id()
            self._backlog_sent = now
            self._transport.request(self._backlog_id, encode(Backlog(first=gap[0], last=gap[1])))

    def _take(self, number: bytes | None, payload: bytes) -> bool:
        """Whether the message told anything new."""
        told = True
        try:
            if number is None:
                self._take_published(decode_published(payload))
            else:
                told = self._take_reply(number, decode_reply(payload))
        except SchemaError:
            self.ignored += 1
            return True
        if told:
            self._heard = self._clock()
        return told

    def _take_published(self, message: Record | Heartbeat) -> None:
        if isinstance(message, Heartbeat):
            if self.welcome is not None and message.run != self.welcome.run:
                self.replaced = True
                return
            self.heartbeat = message
            if message.last_seq >= 0:
                self._sequence.heard_of(message.last_seq)
        elif not self.replaced:
            self._deliver(self._sequence.offer(message.seq, message))

    def _take_reply(self, number: bytes, reply: Reply) -> bool:
        answer = self._waiting.get(number)
        if answer is not None:
            answer.set_result(reply)
        elif number == self._hello_id and isinstance(reply, Welcome):
            if self.welcome is None:
                self.welcome = reply
                if reply.next_seq > 0:
                    self._sequence.heard_of(reply.next_seq - 1)
        elif number == self._backlog_id and isinstance(reply, BacklogPart):
            self._backlog_id = b""
            return self._take_part(reply)
        return True

    def _take_part(self, part: BacklogPart) -> bool:
        """Whether it brought the stream forward: an empty one may come from a trace, not a run."""
        before = self._sequence.next_seq
        for payload in part.records:
            try:
                record = decode_record(payload)
            except SchemaError:
                self.ignored += 1
                continue
            # The run skips what it no longer holds: what lies before this record is gone.
            self._deliver(self._sequence.give_up(min(record.seq, part.next_seq)))
            self._deliver(self._sequence.offer(record.seq, record))
        self._deliver(self._sequence.give_up(part.next_seq))
        if self._died is not None:
            if not part.more:
                self._bury()
        elif self._sequence.next_seq == before:
            self._backlog_due = self._clock() + BACKOFF_SECONDS
        return self._sequence.next_seq > before

    def _deliver(self, records: list[Record]) -> None:
        for record in records:
            if isinstance(record, Header):
                self.header = record
            elif self.header is None and self.welcome is not None and self.welcome.header:
                # History begins after its header was let go: the hello's answer holds the newest.
                self.header = self.welcome.header
                self._ready.append(self.header)
            if isinstance(record, End):
                self.end = record
            self._ready.append(record)

    def _look_for_death(self, quiet: bool) -> None:
        if self._is_alive is None or self.gone or not quiet:
            return
        now = self._clock()
        if self._died is not None:
            if now - self._died > REMAINS_SECONDS:
                self._bury()
        elif self.silence >= 1.0 and now - self._checked >= 0.5:
            self._checked = now
            if not self._is_alive():
                self._died = now
                self._backlog_id, self._backlog_due = b"", now  # none before it will be answered

    def _bury(self) -> None:
        self._deliver(self._sequence.give_up(self._sequence.end))
        self.gone = True

    def _next_id(self) -> bytes:
        return next(self._numbers).to_bytes(8, "big")

    def _wake(self) -> None:
        with contextlib.suppress(OSError):
            self._wake_out.send(b"x")
