"""A run on another machine: the user's own ``ssh`` starts the bridge there and carries it here."""

from __future__ import annotations

import contextlib
import os
import re
import select
import shlex
import subprocess
import threading
from collections import deque
from dataclasses import dataclass
from typing import Any

import msgspec

from monitor.sources.live import LiveSource
from monitor.sources.source import SourceError
from probe.bridge_frames import (
    ENTRY,
    GONE,
    PUBLISHED,
    REFUSAL,
    REPLY,
    REQUEST,
    FrameError,
    FrameReader,
    pack,
)
from probe.client import RunClient
from probe.registry import RunEntry
from probe.transport import REQUEST_ID_BYTES, Arrival

SSH_VARIABLE = "DEFAULTPP_SSH"
"""Replaces ``ssh``, options included, as GIT_SSH_COMMAND does for git."""
NO_PYTHON = 65
"""Exit status of the remote script where no interpreter there can run the bridge."""

_TARGET = re.compile(
    r"ssh://(?:(?P<user>[^@:/\s]+)@)?(?P<host>\[[0-9A-Fa-f:.%]+\]|[^:/@\s\[\]]+)"
    r"(?::(?P<port>\d+))?(?:/(?P<run>[^/\s]+)?)?"
)

# Runs in the remote login shell, which may be bash, zsh, fish or csh: one line, no exclamation
# mark, no single quote inside. The interpreter of the newest registered run is tried first, since
# that Python certainly has the probe; each is tried before it replaces the shell. From / so that a
# module named probe in the home, where a login begins, is not taken for ours.
_SCRIPT = (
    "cd /; "
    'for d in "$DEFAULTPP_STATE_DIR" "${XDG_STATE_HOME:-$HOME/.local/state}/defaultpp" '
    '"$XDG_RUNTIME_DIR/defaultpp/state" "/tmp/defaultpp-$(id -u)/state"; do '
    'for f in $(ls -t "$d"/runs/*.json 2>/dev/null); do '
    'p=$(sed -n "s/.*\\"interpreter\\":\\"\\([^\\"]*\\)\\".*/\\1/p" "$f"); '
    '[ -x "$p" ] && "$p" -c "import probe.bridge" 2>/dev/null && '
    'exec "$p" -m probe.bridge "$@"; done; done; '
    "for p in python3 python; do "
    '"$p" -c "import probe.bridge" 2>/dev/null && exec "$p" -m probe.bridge "$@"; done; '
    f"exit {NO_PYTHON}"
)


@dataclass(frozen=True)
class SshTarget:
    """``ssh://[user@]host[:port][/run]``, taken apart."""

    host: str
    user: str | None = None
    port: int | None = None
    run: str | None = None

    @property
    def login(self) -> str:
        return f"{self.user}@{self.host}" if self.user else self.host


def parse_target(text: str) -> SshTarget:
    """Raises :class:`SourceError` for anything that is not such an address."""
    match = _TARGET.fullmatch(text)
    # A leading dash would be read by ssh as an option, and options can run commands.
    if match is None or match["host"].startswith("-") or (match["user"] or "").startswith("-"):
        raise SourceError(f"{text} is not an address: use ssh://[user@]host[:port][/run]")
    port = int(match["port"]) if match["port"] else None
    if port is not None and not 0 < port < 65536:
        raise SourceError(f"{text}: {port} is not a port")
    return SshTarget(match["host"].strip("[]"), match["user"], port, match["run"])


def command(
    target: SshTarget, remote_python: str | None = None, *, batch: bool = False
) -> list[str]:
    """The ssh command that starts the bridge; ``batch``: it asks for nothing, and fails instead."""
    arguments = ["--run", target.run] if target.run else []
    if remote_python:
        script = f'cd /; exec {shlex.quote(remote_python)} -m probe.bridge "$@"'
        if "'" in script:
            raise SourceError(f"{remote_python} cannot be used: give a path without quotes")
    else:
        script = _SCRIPT
    remote = " ".join(
        ["exec", "sh", "-c", f"'{script}'", "sh", *(shlex.quote(word) for word in arguments)]
    )
    options = ["-T", "-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=3"]
    options += ["-o", "ConnectTimeout=20", "-e", "none"]
    if batch:
        options += ["-o", "BatchMode=yes"]
    if target.port:
        options += ["-p", str(target.port)]
    program = shlex.split(os.environ.get(SSH_VARIABLE, "")) or ["ssh"]
    return [*program, *options, "--", target.login, remote]


class BridgeTransport:
    """Messages through a bridge process's standard streams; see :class:`probe.transport.Transport`.

    The constructor waits for the bridge's first word, which includes ssh asking for a password on
    the terminal. Raises :class:`SourceError` with the reason where there is no run to carry.
    """

    def __init__(self, words: list[str], host: str) -> None:
        self.closed: str | None = None
        self.gone = False
        self._host = host
        self._complaints: deque[str] = deque(maxlen=20)
        self._reader = FrameReader(greeting=True)
        self._arrivals: deque[Arrival] = deque()
        try:
            self._process = subprocess.Popen(
                words,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
            )
        except OSError as error:
            raise SourceError(
                f"{words[0]} cannot be started ({error.strerror}): install an ssh client"
            ) from None
        assert self._process.stdout is not None and self._process.stdin is not None
        self._output = self._process.stdout.fileno()
        self._input = self._process.stdin.fileno()
        # The stream is read while the screen is up, so what ssh says must not reach the terminal.
        self._listener = threading.Thread(target=self._listen, name="ssh-stderr", daemon=True)
        self._listener.start()
        try:
            self.entry = self._first_word()
        except BaseException:
            self.close()
            raise
        os.set_blocking(self._input, False)

    def pollables(self) -> tuple[Any, ...]:
        return (self._output,)

    def receive(self, limit: int) -> list[Arrival]:
        # At most as many reads as messages wanted: a fast stream must not keep the caller here.
        for _ in range(limit):
            if len(self._arrivals) >= limit or self.closed:
                break
            if not select.select([self._output], [], [], 0)[0]:
                break
            self._fill()
        return [self._arrivals.popleft() for _ in range(min(limit, len(self._arrivals)))]

    def request(self, number: bytes, payload: bytes) -> None:
        if self.closed:
            return
        # A pipe that is full or gone drops the request; it is repeated, and reading says why.
        with contextlib.suppress(BlockingIOError, BrokenPipeError):
            os.write(self._input, pack(REQUEST, number + payload))

    def close(self) -> None:
        self.closed = self.closed or "Closed."
        process = self._process
        if process.stdin is not None and not process.stdin.closed:
            process.stdin.close()
        try:
            process.wait(timeout=1.0)
        except subprocess.TimeoutExpired:
            process.terminate()
            try:
                process.wait(timeout=1.0)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._listener.join(1.0)
        for stream in (process.stdout, process.stderr):
            if stream is not None and not stream.closed:
                stream.close()

    def _first_word(self) -> RunEntry:
        while True:
            data = os.read(self._output, 65536)
            if not data:
                raise SourceError(self._why_nothing())
            try:
                frames = self._reader.feed(data)
            except FrameError as error:
                raise SourceError(f"{self._host}: {error}") from None
            for index, (kind, body) in enumerate(frames):
                if kind == REFUSAL:
                    raise SourceError(f"{self._host}: {body.decode(errors='replace')}")
                if kind == ENTRY:
                    self._sort(frames[index + 1 :])
                    return _entry(body, self._host)

    def _fill(self) -> None:
        data = os.read(self._output, 1 << 18)
        if not data:
            self.closed = f"The connection to {self._host} broke{self._last_complaint()}."
            return
        try:
            self._sort(self._reader.feed(data))
        except FrameError as error:
            self.closed = f"The connection to {self._host} is damaged: {error}."

    def _sort(self, frames: list[tuple[bytes, bytes]]) -> None:
        for kind, body in frames:
            if kind == PUBLISHED:
                self._arrivals.append((None, body))
            elif kind == REPLY and len(body) > REQUEST_ID_BYTES:
                self._arrivals.append((body[:REQUEST_ID_BYTES], body[REQUEST_ID_BYTES:]))
            elif kind == GONE:
                self.gone = True

    def _why_nothing(self) -> str:
        status = self._process.wait()
        self._listener.join(1.0)
        if status == NO_PYTHON:
            return (
                f"{self._host}: no Python with defaultpp-monitor was found there: install it, or "
                "name its interpreter with --remote-python"
            )
        if status == 255:
            return f"{self._host} cannot be reached over ssh{self._last_complaint()}"
        return f"{self._host}: the bridge ended (status {status}){self._last_complaint()}"

    def _last_complaint(self) -> str:
        return f": {self._complaints[-1].rstrip('.')}" if self._complaints else ""

    def _listen(self) -> None:
        assert self._process.stderr is not None
        for line in iter(self._process.stderr.readline, b""):
            text = line[:500].decode(errors="replace").strip()
            # The last line that says something: ssh ends with "Connection closed".
            if text and not text.startswith(("debug", "Warning: Permanently added")):
                self._complaints.append("".join(c for c in text if c.isprintable()))


def _entry(body: bytes, host: str) -> RunEntry:
    try:
        return msgspec.json.decode(body, type=RunEntry)
    except msgspec.DecodeError:
        raise SourceError(
            f"{host}: the bridge there is of another version: install the same one on both sides"
        ) from None


def open_ssh(text: str, remote_python: str | None = None, *, batch: bool = False) -> LiveSource:
    """The run behind an ``ssh://`` address. Raises :class:`SourceError`.

    ``batch``: no password is asked for; where one is needed, the sentence says how to be asked.
    """
    target = parse_target(text)
    try:
        transport = BridgeTransport(command(target, remote_python, batch=batch), target.host)
    except SourceError as error:
        if not batch or "ssh" not in str(error):
            raise
        raise SourceError(
            f"{error}; if it wants a password: defaultpp-monitor attach {text}"
        ) from None
    entry = transport.entry
    return LiveSource(
        RunClient(transport, is_alive=lambda: not transport.gone),
        f"ssh://{target.login}/{entry.name}",
        name=entry.name,
        process=f"pid {entry.pid} on {target.host}",
        trace=f"{target.host}:{entry.trace}" if entry.trace else "",
    )
