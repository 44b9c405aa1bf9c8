"""Requests to the training: sent from a thread of their own, a pause renewed as a lease."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

from monitor.sources.source import Source
from probe.schema import PAUSE_LEASE_SECONDS, Control

RENEW_SECONDS = 1.0
assert RENEW_SECONDS < PAUSE_LEASE_SECONDS


class Controlling:
    """Sends controls in order; ``on_reply`` gets each new sentence, in the thread.

    While the training is paused by us, the pause is renewed every ``renew`` seconds. Nothing is
    sent at the end: the lease lapses and the training goes on.
    """

    def __init__(
        self, source: Source, on_reply: Callable[[str], None], renew: float = RENEW_SECONDS
    ) -> None:
        self._source = source
        self._on_reply = on_reply
        self._renew = renew
        self._wanted: queue.Queue[Control | None] = queue.Queue()
        self._said = ""
        self.pausing = False
        """The training is held by our lease."""
        self._thread = threading.Thread(target=self._run, name="monitor-control", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._wanted.put(None)

    def pause(self) -> None:
        self.pausing = True
        self._wanted.put(Control(action="pause"))

    def resume(self) -> None:
        self.pausing = False
        self._wanted.put(Control(action="resume"))

    def sample(self) -> None:
        self._wanted.put(Control(action="sample"))

    def _run(self) -> None:
        while True:
            try:
                control = self._wanted.get(timeout=self._renew if self.pausing else None)
            except queue.Empty:
                renewal = self._source.send(Control(action="pause"))
                if renewal != self._said:
                    self._say(renewal)
                continue
            if control is None:
                return
            self._say(self._source.send(control))

    def _say(self, text: str) -> None:
        self._said = text
        if text:
            self._on_reply(text)
