"""Where a run can be reached: which addresses are allowed, and with which keys.

A run has two sockets, one that publishes and one that takes requests. By default both are ``ipc``
sockets in a private directory. TCP always needs keys (CURVE, both ends prove theirs): every user
of a machine can connect to its loopback. For the loopback they are made afresh and kept in the
registry; any other address needs a key file made before, on both machines:
``python -m probe.endpoint FILE``.
"""

from __future__ import annotations

import ipaddress
import os
import re
import secrets
import socket
import stat
import sys
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import zmq

from probe.directories import DirectoryError, fallback_runtime_dir, runtime_dir

KEYS_VARIABLE = "DEFAULTPP_KEYS"
IPC_PATH_LIMIT = 107
"""Bytes of a unix socket's path, ``sun_path`` less its final zero (unix(7))."""
_KEY_LENGTH = 40
_TCP = re.compile(r"tcp://(\[[^\]]+\]|[^:\[\]/]+):(\*|\d{1,5})")


class EndpointError(Exception):
    """An endpoint that is not allowed or not possible; the message says what to do."""


class CurveKeys(msgspec.Struct, frozen=True):
    """Both secret keys, Z85 text: the probe's own and the one its monitors use."""

    server_secret: str
    client_secret: str

    @property
    def server_public(self) -> bytes:
        return zmq.curve_public(self.server_secret.encode())

    @property
    def client_public(self) -> bytes:
        return zmq.curve_public(self.client_secret.encode())

    @property
    def access_key(self) -> str:
        """What a monitor needs: the probe's public key and its own secret one, 80 characters."""
        return self.server_public.decode() + self.client_secret


@dataclass(frozen=True)
class Endpoints:
    """What the two sockets shall bind to. A TCP port may be ``*``: any free one."""

    publish: str
    control: str
    keys: CurveKeys | None = field(default=None, repr=False)

    @property
    def ipv6(self) -> bool:
        return "[" in self.publish


def new_keys() -> CurveKeys:
    """A fresh pair of key pairs. Raises :class:`EndpointError` where libzmq has no CURVE."""
    if not zmq.has("curve"):
        raise EndpointError(
            "this build of pyzmq has no CURVE encryption, so TCP endpoints cannot be used: leave "
            "endpoint out, or install pyzmq from its wheel"
        )
    server, client = zmq.curve_keypair()[1], zmq.curve_keypair()[1]
    return CurveKeys(server_secret=server.decode(), client_secret=client.decode())


def write_keys(path: Path) -> CurveKeys:
    """Make keys and write them to a new file that only its owner can read."""
    keys = new_keys()
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(msgspec.json.encode(keys) + b"\n")
    except OSError as error:
        raise EndpointError(f"{path}: the keys cannot be written: {error.strerror}") from None
    return keys


def read_keys(path: Path) -> CurveKeys:
    """Keys written by :func:`write_keys`. Raises :class:`EndpointError`."""
    try:
        status = path.stat()
        if status.st_mode & 0o077:
            raise EndpointError(f"{path}: other users can read these keys: run chmod 600 {path}")
        keys = msgspec.json.decode(path.read_bytes()[:4096], type=CurveKeys)
        _ = keys.access_key, keys.client_public  # raises on what is not a key
    except OSError as error:
        raise EndpointError(f"{path}: the keys cannot be read: {error.strerror}") from None
    except (msgspec.DecodeError, ValueError, zmq.ZMQError):
        raise EndpointError(f"{path}: not a key file of python -m probe.endpoint") from None
    return keys


def secure_client(socket_: zmq.Socket[bytes], key: str) -> None:
    """Make a monitor's socket use an access key, before it connects. An empty key: nothing."""
    if not key:
        return
    if len(key) != 2 * _KEY_LENGTH:
        raise EndpointError("the access key is not one of this program's: it has 80 characters")
    try:
        secret = key[_KEY_LENGTH:].encode()
        socket_.curve_publickey = zmq.curve_public(secret)
        socket_.curve_secretkey = secret
        socket_.curve_serverkey = key[:_KEY_LENGTH].encode()
    except (zmq.ZMQError, ValueError):
        raise EndpointError(
            "the access key is damaged: take it from the run's list again"
        ) from None


def choose(endpoint: str | None = None, keys: CurveKeys | None = None) -> Endpoints:
    """Check an endpoint given by the user, or choose one.

    ``endpoint``: None; ``ipc://PATH`` (two sockets, ``PATH.pub`` and ``PATH.ctl``); or
    ``tcp://HOST:PORT`` (``PORT`` and ``PORT + 1``; ``*``: two free ones). ``keys`` default to the
    file named by ``DEFAULTPP_KEYS``, on the loopback to fresh ones.
    Raises :class:`EndpointError` or DirectoryError.
    """
    if endpoint is None:
        return _default()
    if endpoint.startswith("ipc://"):
        return _ipc(endpoint.removeprefix("ipc://"))
    if endpoint.startswith("tcp://"):
        return _tcp(endpoint, keys)
    raise EndpointError(
        f"{endpoint!r} is not an endpoint: use ipc:///a/path, tcp://127.0.0.1:* or leave it out"
    )


def _default() -> Endpoints:
    name = secrets.token_hex(4)
    directory = runtime_dir()
    if len(os.fsencode(directory / f"{name}.pub")) > IPC_PATH_LIMIT:
        directory = fallback_runtime_dir()
    return _pair(directory / name)


def _ipc(text: str) -> Endpoints:
    if not text or text.startswith("@") or "*" in text:
        raise EndpointError("an ipc endpoint needs a file path, as in ipc:///home/me/run")
    path = Path(os.path.abspath(text))
    try:
        status = path.parent.stat()
    except OSError:
        raise EndpointError(f"{path.parent} does not exist: make it with mode 0700 first") from None
    if status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise EndpointError(
            f"{path.parent} is open to other users, who could control the run: use a directory of "
            "your own with mode 0700, or leave endpoint out"
        )
    return _pair(path)


def _pair(path: Path) -> Endpoints:
    sockets = [Path(f"{path}.pub"), Path(f"{path}.ctl")]
    for file in sockets:
        if len(os.fsencode(file)) > IPC_PATH_LIMIT:
            raise EndpointError(
                f"{file} is longer than the {IPC_PATH_LIMIT} bytes a socket's path may have: "
                "choose a shorter one"
            )
        check_free(file)
    return Endpoints(publish=f"ipc://{sockets[0]}", control=f"ipc://{sockets[1]}")


def check_free(path: Path) -> None:
    """Raise unless nothing, or only a dead socket, is at ``path``; libzmq itself would steal it."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise EndpointError(f"{path} exists and is not a socket: name another endpoint")
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return
        except OSError:
            pass  # a full queue or no permission: someone is there
    raise EndpointError(f"{path} is in use by another run: name another endpoint")


def _tcp(endpoint: str, keys: CurveKeys | None) -> Endpoints:
    match = _TCP.fullmatch(endpoint)
    port = match.group(2) if match else ""
    if match is None or (port != "*" and not 0 < int(port) < 65535):
        raise EndpointError(f"{endpoint!r} needs a host and a port, as in tcp://127.0.0.1:5555")
    host = match.group(1)
    if host == "localhost":
        host = "127.0.0.1"
    if keys is None and os.environ.get(KEYS_VARIABLE):
        keys = read_keys(Path(os.environ[KEYS_VARIABLE]))
    if keys is None:
        if not _is_loopback(host):
            raise EndpointError(
                f"{endpoint} can be reached from other machines, so it needs keys: make them with "
                f"'python -m probe.endpoint keys.json', copy the file to the monitor's machine and "
                f"set {KEYS_VARIABLE}=keys.json on both (or leave endpoint out and attach over ssh)"
            )
        keys = new_keys()
    if port == "*":
        return Endpoints(f"tcp://{host}:*", f"tcp://{host}:*", keys)
    return Endpoints(f"tcp://{host}:{port}", f"tcp://{host}:{int(port) + 1}", keys)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False  # a name or an interface: it may lead anywhere


def main(arguments: list[str]) -> int:
    """``python -m probe.endpoint FILE``: make keys for a TCP endpoint."""
    if len(arguments) != 1 or arguments[0].startswith("-"):
        print("usage: python -m probe.endpoint FILE", file=sys.stderr)
        return 64
    try:
        write_keys(Path(arguments[0]))
    except EndpointError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{arguments[0]} written: set {KEYS_VARIABLE} to its path on both machines")
    return 0


__all__ = [
    "CurveKeys",
    "DirectoryError",
    "EndpointError",
    "Endpoints",
    "check_free",
    "choose",
    "new_keys",
    "read_keys",
    "secure_client",
    "write_keys",
]

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
