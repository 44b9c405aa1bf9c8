"""A process of its own for jobs that may crash or hang: they cost that process only.

The process lives on from job to job, so that torch and the models are imported once. It ends with
the one that started it, however that ends.
"""

from __future__ import annotations

import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref
from multiprocessing.connection import Connection

START_SECONDS = 300.0
"""A new process imports torch and the models first; that does not count as silence."""

SERVE = "from diagnoser.corpus.child import serve; serve()"
READY, CONTENT, FINISHED = b"r", b"c", b"f"


class Crash(Exception):
    """The process died or fell silent; the message says which."""


def _end(process: subprocess.Popen[bytes], connection: Connection) -> None:
    process.kill()
    process.wait()
    connection.close()


class Child:
    """A process that works off one job at a time.

    Started by ``subprocess``, for the processes of a cluster may not have children by
    ``multiprocessing``.
    """

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", SERVE, str(theirs.fileno()), str(os.getpid())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )
        self._connection = Connection(ours.detach())
        self._owner: int | None = None
        self.end = weakref.finalize(self, _end, self._process, self._connection)

    def run(self, call: bytes, patience: float, owner: int = 0) -> list[bytes]:
        """What ``work(job)`` yields, each pickled; ``call``: ``(work, job)``, pickled.

        ``owner``: the process that wants it. Where that started this one and is gone, however it
        ended, this one ends too, and the child with it: joblib's workers outlive a killed build
        until their job is done.

        Raises :class:`Crash` where the process died, or was silent for ``patience`` seconds; its
        second argument holds what was yielded before. The child is of no use then.
        """
        found: list[bytes] = []
        self._owner = owner if os.getppid() == owner else None
        try:
            self._connection.send_bytes(call)
            limit = START_SECONDS
            while True:
                if not self._hears_within(limit):
                    self.end()
                    raise Crash(f"nothing was heard for {limit:.0f} s", found)
                message = self._connection.recv_bytes()
                limit = patience
                if message == FINISHED:
                    return found
                if message != READY:
                    found.append(message.removeprefix(CONTENT))
        except (EOFError, OSError):
            self.end()
            status = self._process.returncode
            raise Crash(f"the process ended with status {status}", found) from None

    def _hears_within(self, seconds: float) -> bool:
        """Second by second: of a time in which all is stopped hardly any counts."""
        for _ in range(max(1, round(seconds))):
            if self._connection.poll(1.0):
                return True
            if self._owner not in (None, os.getppid()):
                self.end()
                os._exit(1)
        return False


def _follow(parent: int) -> None:
    """Ends this process once its parent is gone, whatever it is doing."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)


def serve() -> None:
    """What the process does; called with the socket and the parent's id as arguments."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the first process's to handle
    connection, parent = Connection(int(sys.argv[1])), int(sys.argv[2])
    threading.Thread(target=_follow, args=(parent,), daemon=True).start()
    try:
        while True:
            work, job = pickle.loads(connection.recv_bytes())  # imports the modules of the job
            connection.send_bytes(READY)
            for content in work(job):
                connection.send_bytes(CONTENT + pickle.dumps(content))
            connection.send_bytes(FINISHED)
    except (EOFError, BrokenPipeError):  # the parent is gone, or wants no more
        return
