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
        self._wanted: queue.Queue[tuple[Control, str] | None] = queue.Queue()
        self._held = ""
        """The answer to the pause, and to each renewal of it: told where it changes."""
        self.pausing = False
        """The training is held by our lease."""
        self._thread = threading.Thread(target=self._run, name="monitor-control", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._wanted.put(None)

    def pause(self, why: str = "") -> None:
        """``why`` is told with the answer."""
        self.pausing = True
        self._wanted.put((Control(action="pause"), why))

    def resume(self) -> None:
        self.pausing = False
        self._wanted.put((Control(action="resume"), ""))

    def step(self) -> None:
        """One step more, then paused again."""
        self.pausing = True
        self._wanted.put((Control(action="step"), ""))

    def sample(self) -> None:
        self._wanted.put((Control(action="sample"), ""))

    def _run(self) -> None:
        while True:
            try:
                wanted = self._wanted.get(timeout=self._renew if self.pausing else None)
            except queue.Empty:
                renewal = self._source.send(Control(action="pause"))
                if renewal != self._held:
                    self._held = renewal
                    self._say(renewal)
                continue
            if wanted is None:
                return
            control, why = wanted
            answer = self._source.send(control)
            if control.action == "pause":
                self._held = answer
            self._say(f"{why}: {answer}" if why else answer)

    def _say(self, text: str) -> None:
        if text:
            self._on_reply(text)
