"""A run that is training now, followed over the sockets (or the bridge) of its probe."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import zmq

from monitor.sources.source import Batch, Link, SourceError
from probe.client import RunClient
from probe.endpoint import KEYS_VARIABLE, EndpointError, read_keys, secure_client
from probe.registry import RunEntry
from probe.remains import OutlivingTransport
from probe.schema import Control, Done, End
from probe.transport import SocketTransport, Transport

SILENT_SECONDS = 6.0
"""Heartbeats come each second; this long without any is worth telling."""
NO_ANSWER_SECONDS = 5.0
CONTROL_TIMEOUT = 3.0


class LiveSource:
    """A source over a :class:`RunClient`.

    ``name``, ``process`` and ``trace`` are for the sentences it says.
    """

    def __init__(
        self,
        client: RunClient,
        title: str,
        *,
        name: str = "the run",
        process: str = "",
        trace: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.title = title
        self._client = client
        self._name = name
        self._process = process
        self._trace = trace
        self._clock = clock
        self._opened = clock()
        self._said: tuple[Link, str] = ("connecting", "")
        self._pausing = False
        self._end: End | None = None
        self._closed = False

    def read(self, limit: int = 500, timeout: float = 0.25) -> Batch:
        if self._closed:
            return Batch(link=self._said[0])
        records = self._client.read(limit, timeout)
        for record in records:
            if isinstance(record, End):
                self._end = record
        link, text = self._link(bool(records))
        changed = (link, text) != self._said
        self._said = (link, text)
        heartbeat = self._client.heartbeat
        return Batch(
            records=tuple(records),
            link=link,
            state=self._client.state,
            text=text if changed else "",
            overhead=heartbeat.overhead if heartbeat is not None else float("nan"),
            ignored=self._client.ignored,
        )

    def send(self, control: Control) -> str:
        if self._closed or self._said[0] in ("lost", "ended"):
            return f"{self._name} is no longer running: nothing to {control.action}."
        reply = self._client.request(control, CONTROL_TIMEOUT)
        if not isinstance(reply, Done):
            return f"No answer from {self._name} to {control.action}: it may be busy; try again."
        if reply.ok and control.action != "sample":
            self._pausing = control.action != "resume"
        return reply.text

    def close(self) -> None:
        if self._closed:
            return
        if self._pausing and self._said[0] == "live":
            # The lease would run out by itself; this spares the run the wait.
            self._client.request(Control(action="resume"), timeout=0.5)
        self._closed = True
        self._client.close()

    def _link(self, delivered: bool) -> tuple[Link, str]:
        client = self._client
        if self._end is not None:
            return "ended", f"{self._name} ended at step {self._end.step}: {self._end.reason}."
        lost = self._why_lost(delivered)
        if lost:
            return "lost", lost + (f" Its trace: {self._trace}" if self._trace else "")
        if client.welcome is None:
            waited = self._clock() - self._opened > NO_ANSWER_SECONDS
            return "connecting", (
                f"No answer from {self._name} yet; still trying." if waited else ""
            )
        if client.silence > SILENT_SECONDS:
            return "silent", (
                f"Nothing heard from {self._name} for {SILENT_SECONDS:.0f} s: it may be stopped or "
                "very busy; still listening."
            )
        return "live", f"Connected to {self._name}."

    def _why_lost(self, delivered: bool) -> str:
        """The sentence, or an empty string while there is hope or more to read."""
        client = self._client
        if client.replaced:
            return f"Another run answers where {self._name} was."
        if not delivered and client.gone:
            process = f" ({self._process})" if self._process else ""
            return (
                f"The process of {self._name}{process} is gone: it was killed or it crashed. All "
                "that was read stays here."
            )
        if not delivered and client.broken:
            return f"{client.broken} All that was read stays here."
        return ""


def open_entry(entry: RunEntry) -> LiveSource:
    """A registered run. Raises :class:`SourceError`."""
    if not entry.publish or not entry.control:
        trace = f": replay its trace, {entry.trace}" if entry.trace else ""
        raise SourceError(f"{entry.name} has no sockets to connect to{trace}")
    socket = entry.publish.removeprefix("ipc://")
    # A container that shares the directory of sockets is elsewhere, and yet within reach.
    if not entry.here and socket != entry.publish and not Path(socket).exists():
        raise SourceError(
            f"{entry.name} runs on {entry.host}: "
            f"defaultpp-monitor attach ssh://{entry.host}/{entry.name}"
        )
    transport: Transport = _connect(entry.publish, entry.control, entry.key)
    if entry.here:
        transport = OutlivingTransport(transport, entry.trace, lambda: not entry.alive)
    client = RunClient(transport, is_alive=(lambda: entry.alive) if entry.here else None)
    scheme = entry.publish.partition("://")[0]
    return LiveSource(
        client,
        f"{entry.name} ({scheme})",
        name=entry.name,
        process=f"pid {entry.pid}",
        trace=entry.trace,
    )


def open_endpoint(endpoint: str) -> LiveSource:
    """A run by the address given to ``probe.attach(endpoint=...)``. Raises :class:`SourceError`."""
    publish, control = _pair(endpoint)
    key = ""
    if endpoint.startswith("tcp://"):
        file = os.environ.get(KEYS_VARIABLE)
        if not file:
            raise SourceError(
                f"{endpoint} needs its keys: set {KEYS_VARIABLE} to the key file of the run, or "
                "attach by the run's name on its own machine"
            )
        try:
            key = read_keys(Path(file)).access_key
        except EndpointError as error:
            raise SourceError(str(error)) from None
    return LiveSource(RunClient(_connect(publish, control, key)), endpoint, name=endpoint)


def _pair(endpoint: str) -> tuple[str, str]:
    """Addresses of stream and requests, as :func:`probe.endpoint.choose` lays them out."""
    scheme, _, rest = endpoint.partition("://")
    if scheme == "ipc" and rest:
        path = rest.removesuffix(".pub").removesuffix(".ctl")
        return f"ipc://{path}.pub", f"ipc://{path}.ctl"
    host, _, port = rest.rpartition(":")
    if scheme == "tcp" and host and port.isdecimal() and 0 < int(port) < 65535:
        return f"tcp://{host}:{port}", f"tcp://{host}:{int(port) + 1}"
    raise SourceError(f"{endpoint} is not an address: use ipc:///path, tcp://host:port or ssh://")


def _connect(publish: str, control: str, key: str) -> SocketTransport:
    try:
        return SocketTransport(publish, control, lambda opened: secure_client(opened, key))
    except (EndpointError, zmq.ZMQError) as error:
        raise SourceError(f"{publish} cannot be used: {error}") from None
