"""How messages travel between a monitor and a run: here, straight over ZeroMQ sockets."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, Protocol

import zmq

from probe.schema import MAX_MESSAGE_BYTES

REQUEST_ID_BYTES = 8

Arrival = tuple[bytes | None, bytes]
"""Request id and payload of a reply; the id is None for a published message."""


class Transport(Protocol):
    """Carries requests to a run, and its replies and published messages back. One thread."""

    @property
    def closed(self) -> str | None:
        """Why the connection is over, once it is; None while it can still bring something."""
        ...

    def pollables(self) -> tuple[Any, ...]:
        """ZeroMQ sockets or file descriptors that become readable when something came."""
        ...

    def receive(self, limit: int) -> list[Arrival]:
        """What has come, at most about ``limit`` messages; never waits."""
        ...

    def request(self, number: bytes, payload: bytes) -> None:
        """Send a request; a request that cannot be sent now is dropped (it is retried)."""
        ...

    def close(self) -> None: ...


class SocketTransport:
    """Two ZeroMQ sockets connected to a run's own: SUB for the stream, DEALER for requests.

    ``secure`` prepares each socket before it connects (keys). Lost connections are remade by
    ZeroMQ itself, so :attr:`closed` stays None.
    """

    closed: str | None = None

    def __init__(
        self,
        publish: str,
        control: str,
        secure: Callable[[zmq.Socket[bytes]], None] | None = None,
    ) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        try:
            self._stream = self._open(zmq.SUB, publish, secure)
            self._requests = self._open(zmq.DEALER, control, secure)
        except BaseException:
            self._context.destroy(linger=0)
            raise

    def _open(
        self, kind: int, endpoint: str, secure: Callable[[zmq.Socket[bytes]], None] | None
    ) -> zmq.Socket[bytes]:
        opened: zmq.Socket[bytes] = self._context.socket(kind)
        opened.setsockopt(zmq.LINGER, 0)
        opened.setsockopt(zmq.MAXMSGSIZE, MAX_MESSAGE_BYTES)
        opened.setsockopt(zmq.RCVHWM, 10_000)
        opened.setsockopt(zmq.SNDHWM, 100)
        opened.setsockopt(zmq.RECONNECT_IVL, 200)
        opened.setsockopt(zmq.RECONNECT_IVL_MAX, 2000)
        if "[" in endpoint:
            opened.setsockopt(zmq.IPV6, 1)
        if kind == zmq.SUB:
            opened.setsockopt(zmq.SUBSCRIBE, b"")
        if secure is not None:
            secure(opened)
        opened.connect(endpoint)
        return opened

    def pollables(self) -> tuple[Any, ...]:
        return (self._stream, self._requests)

    def receive(self, limit: int) -> list[Arrival]:
        arrivals: list[Arrival] = []
        while len(arrivals) < limit:
            reply = _take(self._requests)
            if reply is None:
                break
            # Anything but our id and one payload is no reply of ours: hand it on as garbage.
            valid = len(reply) == 2 and len(reply[0]) == REQUEST_ID_BYTES
            arrivals.append((reply[0], reply[1]) if valid else (None, b""))
        while len(arrivals) < limit:
            published = _take(self._stream)
            if published is None:
                break
            arrivals.append((None, published[0] if len(published) == 1 else b""))
        return arrivals

    def request(self, number: bytes, payload: bytes) -> None:
        with contextlib.suppress(zmq.Again):
            self._requests.send_multipart([number, payload], zmq.NOBLOCK)

    def close(self) -> None:
        self._context.destroy(linger=0)


def _take(source: zmq.Socket[bytes]) -> list[bytes] | None:
    try:
        return source.recv_multipart(zmq.NOBLOCK)
    except zmq.ZMQError:
        return None
