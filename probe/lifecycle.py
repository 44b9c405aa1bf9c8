"""How a probe ends: closed, with the process, replaced by a newer one, or by its own failure.

However it ends, the training goes on as if it had never been there.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import threading
import traceback
import weakref
from collections.abc import Callable
from typing import Any, TypeVar

from probe import crash
from probe.controls import Controls
from probe.forks import Birthplace
from probe.notices import Notices, in_words
from probe.outlet import Outlet
from probe.publisher import Publisher

_Self = TypeVar("_Self", bound="Lifecycle")


class Lifecycle:
    """The end of a probe. A subclass knows what there is to say at last and to take off.

    ``_off``: nothing is looked at any more. ``_closed``: nor written.
    """

    _publisher: Publisher
    _outlet: Outlet
    _controls: Controls
    _crash: dict[str, str] | None

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._notices = Notices()
        self._off = False
        self._closed = False
        self._birthplace = Birthplace()
        self._forgotten: Any = None
        self._at_exit: Callable[[], None] = lambda: None

    def _see_crash(self, error: BaseException | None, tb: Any) -> None:
        """Keep in words what is about to leave the training."""
        raise NotImplementedError

    def _last_words(self) -> None:
        """Hand on what is still held."""
        raise NotImplementedError

    def _detach(self) -> None:
        """Take every hook off and let go of the model."""
        raise NotImplementedError

    def _begin(self, publisher: Publisher) -> None:
        """Start the thread; see to an end where nobody closes."""
        self._forgotten = weakref.finalize(self, publisher.leave)
        self._forgotten.atexit = False
        me = weakref.ref(self)  # what runs at exit must keep no model alive until then
        self._at_exit = lambda: None if (probe := me()) is None else probe._exit()
        publisher.start()
        atexit.register(self._at_exit)

    @property
    def running(self) -> bool:
        """Neither closed nor off."""
        return not (self._off or self._closed)

    def close(self, reason: str = "closed") -> None:
        """Take every hook off, write the end of the trace, close the sockets."""
        if self._closed or self._birthplace.left:
            return
        self._closed = True
        try:
            # Closed in a "finally": the exception is on its way out.
            self._see_crash(sys.exc_info()[1], None)
            if not self._off:
                self._last_words()
        except Exception as error:
            self._fail(error)
        self._off = self._controls.off = True
        self._detach()
        self._publisher.close(reason)
        if self._forgotten is not None:
            self._forgotten.detach()
        atexit.unregister(self._at_exit)

    def __enter__(self: _Self) -> _Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: Any, tb: Any) -> None:
        self._crash = None  # one that was raised and caught inside did not leave the training
        self._see_crash(error, tb)
        self.close("closed" if kind is None else f"stopped by {kind.__name__}")

    def _exit(self) -> None:
        """The process ends without a close."""
        if self._birthplace.left:
            return
        self._see_crash(crash.uncaught(), None)
        self.close("the training process ended")

    def _idle(self) -> bool:
        """Also in a forked child: the run goes on elsewhere."""
        return self._off or self._birthplace.left

    def _fail(self, error: BaseException, told: bool = False) -> None:
        """The probe turns itself off, says so once, and the training goes on."""
        with self._lock:
            if self._off:
                return
            text = f"the probe turned itself off: {in_words(error)}"
            with contextlib.suppress(Exception):
                self._outlet.event("probe_off", text)
            self._off = self._controls.off = True
        if not told:
            self._notices.tell(f"{text}; training goes on")
        if os.environ.get("DEFAULTPP_DEBUG"):
            traceback.print_exception(type(error), error, error.__traceback__)
        self._detach()
