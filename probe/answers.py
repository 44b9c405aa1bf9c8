"""What a run answers to its monitors' requests."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal

from probe.lease import PauseLease
from probe.schema import (
    Backlog,
    Control,
    Done,
    Hello,
    Reply,
    Welcome,
    decode_request,
)
from probe.status import Status
from probe.stream import Stream

Action = Literal["pause", "resume", "step", "sample"]


class Answers:
    """Turns requests into replies, and ends a pause whose lease has run out.

    ``on_control`` carries an action out. It may be called for ``resume`` although nobody asked: the
    monitor that had paused the run is gone. What it raises is passed to ``on_error``.
    """

    def __init__(
        self,
        run: str,
        stream: Stream,
        on_control: Callable[[Action], Done],
        status: Callable[[], Status],
        on_error: Callable[[BaseException], None],
        world_size: int = 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._run = run
        self._stream = stream
        self._on_control = on_control
        self._status = status
        self._on_error = on_error
        self._clock = clock
        self._lease = PauseLease(world_size)

    @property
    def deadline(self) -> float | None:
        """When :meth:`end_lapsed_pause` has to be called next, in the clock's time."""
        return self._lease.deadline

    def answer(self, payload: bytes) -> Reply:
        """The reply to an encoded request. Raises :class:`probe.schema.SchemaError`."""
        request = decode_request(payload)
        if isinstance(request, Hello):
            return Welcome(
                run=self._run,
                header=self._stream.header,
                first_seq=self._stream.ring.first_seq,
                next_seq=self._stream.ring.next_seq,
                state=self._status().state,
            )
        if isinstance(request, Backlog):
            return self._stream.ring.part(request.first, request.last)
        return self._control(request)

    def end_lapsed_pause(self) -> None:
        """Resume the training if nobody has renewed the pause in time."""
        if self._lease.lapsed(self._clock()):
            self._carry_out("resume")

    def end_pause(self) -> None:
        """Resume the training if it is paused: nobody will listen any more."""
        if self._lease.held:
            self._lease.end()
            self._carry_out("resume")

    def _control(self, request: Control) -> Done:
        now = self._clock()
        holds = request.action in ("pause", "step")
        if holds and not self._lease.allows(now):
            return Done(
                ok=False,
                text="the pause was ended: the other ranks of this run would have timed out",
            )
        done = self._carry_out(request.action)
        if holds and done.ok:
            self._lease.renew(now)
        elif request.action == "resume":
            self._lease.end()
        return done

    def _carry_out(self, action: Action) -> Done:
        try:
            return self._on_control(action)
        except Exception as error:
            self._on_error(error)
            return Done(ok=False, text=f"the probe could not {action}: {error}")
