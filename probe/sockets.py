"""A run's two ZeroMQ sockets: one publishes the stream, one takes requests and replies."""

from __future__ import annotations

import contextlib
from pathlib import Path

import zmq
from zmq.utils import z85
from zmq.utils.monitor import parse_monitor_message

from probe.endpoint import EndpointError, Endpoints

MAX_REQUEST_BYTES = 64 * 1024
"""libzmq drops whoever sends a larger frame; requests take less than a hundred bytes."""
REQUEST_ID_BYTES = 8
PUBLISH_QUEUE = 256
"""Messages held for each subscriber; a slower one misses some and asks for them again."""
REPLY_QUEUE = 16
"""Replies held for each requester; a part of the backlog may take a megabyte."""
_ROUND = 64
"""Messages taken from a socket in one go, so that a flood does not starve the stream."""
_ZAP = "inproc://zeromq.zap.01"
_BAD_HANDSHAKES = (
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
)

Request = tuple[bytes, bytes, bytes]
"""Routing identity, request id, payload."""


class RunSockets:
    """Binds both sockets; every method belongs to the thread that made it and never blocks.

    The publishing socket is an XPUB: to a subscriber the same as a PUB, but what is sent to it can
    be seen, so that garbage is counted rather than lost from sight. Peers that fail the handshake
    (no ZeroMQ at all, a wrong socket type, a wrong key) are counted too.
    Raises :class:`EndpointError` where a socket cannot be bound.
    """

    def __init__(self, endpoints: Endpoints) -> None:
        self.rejected = 0
        """Unreadable messages and peers so far."""
        self.keys = endpoints.keys
        self._ipv6 = endpoints.ipv6
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._watched: list[zmq.Socket[bytes]] = []
        self._gate: zmq.Socket[bytes] | None = None
        try:
            if endpoints.keys is not None:
                self._gate = self._context.socket(zmq.REP)
                self._gate.linger = 0
                self._gate.bind(_ZAP)
            self._stream = self._bind(zmq.XPUB, endpoints.publish, PUBLISH_QUEUE)
            self._requests = self._bind(zmq.ROUTER, endpoints.control, REPLY_QUEUE)
        except BaseException:
            self._context.destroy(linger=0)
            raise
        self.publish_endpoint = _bound(self._stream)
        self.control_endpoint = _bound(self._requests)
        self._files = [
            (file, file.stat().st_ino)
            for endpoint in (self.publish_endpoint, self.control_endpoint)
            if endpoint.startswith("ipc://")
            for file in (Path(endpoint.removeprefix("ipc://")),)
        ]

    def pollables(self) -> list[zmq.Socket[bytes]]:
        """The sockets to wait for."""
        gate = [] if self._gate is None else [self._gate]
        return [self._stream, self._requests, *self._watched, *gate]

    def publish(self, payload: bytes) -> None:
        """Send to every subscriber that keeps up."""
        with contextlib.suppress(zmq.ZMQError):
            self._stream.send(payload, zmq.NOBLOCK)

    def requests(self) -> list[Request]:
        """The well-formed requests that came; what else came is counted and dropped."""
        self._admit()
        self._count_bad_handshakes()
        self._count_garbage_on_stream()
        arrived: list[Request] = []
        for _ in range(_ROUND):
            frames = _take(self._requests, limit=3)
            if frames is None:
                break
            if len(frames) == 3 and len(frames[1]) == REQUEST_ID_BYTES:
                arrived.append((frames[0], frames[1], frames[2]))
            else:
                self.rejected += 1
        return arrived

    def reply(self, request: Request, payload: bytes) -> None:
        """Answer a request; dropped if the requester is gone or does not take its replies."""
        with contextlib.suppress(zmq.ZMQError):
            self._requests.send_multipart([request[0], request[1], payload], zmq.NOBLOCK)

    def close(self, linger_ms: int = 0) -> None:
        """Close, giving what is queued up to ``linger_ms`` to leave; removes ipc files."""
        for socket in (self._stream, self._requests):
            with contextlib.suppress(zmq.ZMQError):
                socket.disable_monitor()
        self._context.destroy(linger=linger_ms)
        for file, inode in self._files:  # libzmq leaves them; by now one may be another run's
            with contextlib.suppress(OSError):
                if file.lstat().st_ino == inode:
                    file.unlink()

    def _bind(self, kind: int, endpoint: str, queue: int) -> zmq.Socket[bytes]:
        socket: zmq.Socket[bytes] = self._context.socket(kind)
        socket.linger = 0
        socket.sndhwm = queue
        socket.rcvhwm = 4 * _ROUND
        socket.setsockopt(zmq.MAXMSGSIZE, MAX_REQUEST_BYTES)
        keys = self.keys
        if keys is not None:
            socket.setsockopt(zmq.ZAP_DOMAIN, b"defaultpp")
            socket.curve_secretkey = keys.server_secret.encode()
            socket.curve_publickey = keys.server_public
            socket.curve_server = True
        if self._ipv6:
            socket.ipv6 = True
        self._watched.append(socket.get_monitor_socket(_BAD_HANDSHAKES))
        try:
            socket.bind(endpoint)
        except zmq.ZMQError as error:
            raise EndpointError(
                f"{endpoint} cannot be used ({error.strerror}): the run goes on without being "
                "watched live; leave endpoint out or name another"
            ) from None
        return socket

    def _admit(self) -> None:
        """Answer libzmq's questions (ZAP, RFC 27) whether a client's public key is the known one.

        CURVE alone proves that the client knows the probe's public key; this proves that it also
        holds the client's secret one.
        """
        keys = self.keys
        if self._gate is None or keys is None:
            return
        for _ in range(_ROUND):
            try:
                question = self._gate.recv_multipart(zmq.NOBLOCK)
            except zmq.ZMQError:
                return
            # version, request id, domain, address, identity, mechanism, 32 bytes of public key
            known = (
                len(question) == 7
                and question[5] == b"CURVE"
                and z85.encode(question[6]) == keys.client_public
            )
            code, text = (b"200", b"OK") if known else (b"400", b"unknown key")
            number = question[1] if len(question) > 1 else b""
            with contextlib.suppress(zmq.ZMQError):
                self._gate.send_multipart([b"1.0", number, code, text, b"", b""], zmq.NOBLOCK)

    def _count_bad_handshakes(self) -> None:
        for watched in self._watched:
            for _ in range(_ROUND):
                try:
                    event = parse_monitor_message(watched.recv_multipart(zmq.NOBLOCK))
                except zmq.ZMQError:
                    break
                if event["event"] & _BAD_HANDSHAKES:
                    self.rejected += 1

    def _count_garbage_on_stream(self) -> None:
        for _ in range(_ROUND):
            frames = _take(self._stream, limit=1)
            if frames is None:
                return
            # 1 and 0 begin a subscription and its end (RFC 29); nothing else has a meaning here.
            if len(frames) != 1 or frames[0][:1] not in (b"\x00", b"\x01"):
                self.rejected += 1


def _take(socket: zmq.Socket[bytes], limit: int) -> list[bytes] | None:
    """One message, at most ``limit`` + 1 of its frames kept; None if none is waiting."""
    try:
        frames = [socket.recv(zmq.NOBLOCK)]
        while socket.getsockopt(zmq.RCVMORE):
            frame = socket.recv(zmq.NOBLOCK)
            if len(frames) <= limit:
                frames.append(frame)
    except zmq.ZMQError:
        return None
    return frames


def _bound(socket: zmq.Socket[bytes]) -> str:
    """The endpoint with the port that the system chose."""
    endpoint = socket.getsockopt(zmq.LAST_ENDPOINT)
    return bytes(endpoint).rstrip(b"\0").decode()
