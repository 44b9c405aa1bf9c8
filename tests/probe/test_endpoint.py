import os
import socket
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from probe import endpoint
from probe.endpoint import EndpointError, choose, read_keys, write_keys


@pytest.fixture
def private(monkeypatch):
    """A private directory with a short path, also used as the runtime directory."""
    with tempfile.TemporaryDirectory(prefix="dpp") as name:
        monkeypatch.setenv("DEFAULTPP_RUNTIME_DIR", name)
        monkeypatch.delenv("DEFAULTPP_KEYS", raising=False)
        yield Path(name)


def test_the_default_is_two_fresh_sockets_in_the_private_directory(private):
    chosen = [choose() for _ in range(20)]
    paths = {path for ends in chosen for path in (ends.publish, ends.control)}
    assert len(paths) == 40
    for path in paths:
        assert Path(path.removeprefix("ipc://")).parent == private
        assert len(path.removeprefix("ipc://").encode()) <= 107
    assert all(ends.keys is None for ends in chosen)


def test_a_long_runtime_directory_gives_way_to_a_short_one(monkeypatch, tmp_path, private):
    deep = tmp_path / ("x" * 100)
    deep.mkdir(mode=0o700)
    monkeypatch.setenv("DEFAULTPP_RUNTIME_DIR", str(deep))
    monkeypatch.setattr(endpoint, "fallback_runtime_dir", lambda: private)
    assert choose().publish.startswith(f"ipc://{private}/")


def test_a_named_ipc_endpoint(private):
    ends = choose(f"ipc://{private}/mine")
    assert (ends.publish, ends.control) == (
        f"ipc://{private}/mine.pub",
        f"ipc://{private}/mine.ctl",
    )


def test_a_live_socket_is_never_bound_over_and_a_dead_one_is_replaced(private):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(private / "mine.ctl"))
        listener.listen()
        with pytest.raises(EndpointError, match="in use"):
            choose(f"ipc://{private}/mine")
    assert choose(f"ipc://{private}/mine").control.endswith("mine.ctl")
    (private / "other.pub").write_text("data")
    with pytest.raises(EndpointError, match="not a socket"):
        choose(f"ipc://{private}/other")


def test_ipc_where_others_can_reach_it_is_refused(private, tmp_path):
    tmp_path.chmod(0o755)
    with pytest.raises(EndpointError, match="open to other users"):
        choose(f"ipc://{tmp_path}/x")
    for bad in ("ipc://", "ipc://@abstract", "ipc://*"):
        with pytest.raises(EndpointError, match="needs a file path"):
            choose(bad)
    with pytest.raises(EndpointError, match="does not exist"):
        choose(f"ipc://{private}/no/where")
    with pytest.raises(EndpointError, match="107 bytes"):
        choose(f"ipc://{private}/{'x' * 120}")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "localhost", "[::1]"])
def test_the_loopback_gets_fresh_keys(host, private):
    first, second = choose(f"tcp://{host}:*"), choose(f"tcp://{host}:*")
    assert first.keys is not None
    assert second.keys is not None
    assert len(first.keys.access_key) == 80
    assert first.keys.access_key != second.keys.access_key
    assert first.keys.server_secret not in repr(first)
    assert first.keys.server_secret not in first.keys.access_key


def test_two_ports_follow_each_other(private):
    ends = choose("tcp://127.0.0.1:5555")
    assert (ends.publish, ends.control) == ("tcp://127.0.0.1:5555", "tcp://127.0.0.1:5556")


@pytest.mark.parametrize("host", ["0.0.0.0", "*", "10.1.2.3", "node7", "eth0", "[::]", "127.evil"])
def test_any_other_address_needs_keys(host, private):
    with pytest.raises(EndpointError, match=r"python -m probe\.endpoint keys\.json"):
        choose(f"tcp://{host}:5555")
    assert choose(f"tcp://{host}:5555", endpoint.new_keys()).keys is not None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "udp://1.2.3.4:5",
        "tcp://127.0.0.1",
        "tcp://127.0.0.1:0",
        "tcp://127.0.0.1:65535",
        "tcp://127.0.0.1:port",
        "tcp://:5",
        "tcp://127.0.0.1:5/x",
        "inproc://x",
    ],
)
def test_what_is_no_endpoint_is_refused_in_one_line(text, private):
    with pytest.raises(EndpointError) as caught:
        choose(text)
    assert "127.0.0.1" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_key_files(private, monkeypatch):
    path = private / "keys.json"
    keys = write_keys(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert read_keys(path) == keys
    monkeypatch.setenv("DEFAULTPP_KEYS", str(path))
    assert choose("tcp://0.0.0.0:*").keys == keys
    assert choose("tcp://127.0.0.1:*").keys == keys
    with pytest.raises(EndpointError, match="cannot be written"):
        write_keys(path)  # never over existing ones
    path.chmod(0o644)
    with pytest.raises(EndpointError, match="chmod 600"):
        choose("tcp://0.0.0.0:*")
    for content in (b"", b"{}", b'{"server_secret": "x", "client_secret": "y"}', os.urandom(50)):
        path.write_bytes(content)
        path.chmod(0o600)
        with pytest.raises(EndpointError, match="not a key file"):
            read_keys(path)
    with pytest.raises(EndpointError, match="cannot be read"):
        read_keys(private / "missing")


def test_the_command_that_makes_keys(private):
    path = private / "keys.json"
    command = [sys.executable, "-m", "probe.endpoint", str(path)]
    made = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "DEFAULTPP_KEYS" in made.stdout
    assert made.stderr == ""
    assert len(read_keys(path).access_key) == 80
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert again.returncode == 1
    assert again.stderr.count("\n") == 1
    assert endpoint.main([]) == 64
