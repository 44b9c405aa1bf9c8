"""Addresses, the remote command and a bridge that is a local process: no network."""

import shlex
import sys

import pytest

from monitor.sources.source import SourceError
from monitor.sources.ssh import BridgeTransport, SshTarget, command, parse_target
from probe.bridge_frames import ENTRY, GONE, GREETING, PUBLISHED, REFUSAL, pack


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("ssh://gpu", SshTarget("gpu")),
        ("ssh://me@gpu:2222/bert-7", SshTarget("gpu", "me", 2222, "bert-7")),
        ("ssh://me@gpu/", SshTarget("gpu", "me")),
        ("ssh://[::1]:22/x", SshTarget("::1", None, 22, "x")),
    ],
)
def test_addresses(text, target):
    assert parse_target(text) == target


@pytest.mark.parametrize(
    "text",
    [
        "ssh://",
        "ssh://-oProxyCommand=evil",
        "ssh://-l@host",
        "ssh://host/a/b",
        "ssh://host:port",
        "ssh://host:70000",
        "ssh://a b",
        "gpu",
    ],
)
def test_what_is_no_address_is_refused(text):
    with pytest.raises(SourceError):
        parse_target(text)


def test_the_command_uses_the_users_own_ssh(monkeypatch):
    monkeypatch.setenv("DEFAULTPP_SSH", "myssh -J jump")
    words = command(SshTarget("gpu", "me", 2222, "bert"))
    assert words[:3] == ["myssh", "-J", "jump"]
    assert words[words.index("-p") + 1] == "2222"
    assert words[-3:-1] == ["--", "me@gpu"]
    assert words[-1].endswith("sh --run bert")


def test_a_run_name_cannot_become_a_command():
    remote = command(SshTarget("gpu", run="x;touch${IFS}y"))[-1]
    assert shlex.split(remote)[-1] == "x;touch${IFS}y"


def test_the_remote_script_is_fit_for_any_login_shell():
    remote = command(SshTarget("gpu"))[-1]
    assert "\n" not in remote
    assert "!" not in remote  # history expansion of csh
    assert remote.count("'") == 2


def bridge(*pieces):
    """A process that writes these bytes, then waits for its input to close."""
    code = "import sys; sys.stdout.buffer.write(bytes.fromhex(sys.argv[1])); "
    code += "sys.stdout.flush(); sys.stdin.read()"
    return [sys.executable, "-S", "-c", code, b"".join(pieces).hex()]


ENTRY_FRAME = pack(
    ENTRY,
    b'{"run":"r1","name":"bert","created":1,"host":"gpu","boot_id":"b","pid":4,"started":"1",'
    b'"interpreter":"/usr/bin/python3"}',
)


def opened(*pieces):
    return BridgeTransport(bridge(*pieces), "gpu")


def test_a_banner_before_the_greeting_is_skipped():
    transport = opened(b"Welcome to gpu!\r\nLast login: now\n", GREETING, ENTRY_FRAME)
    try:
        assert transport.entry.name == "bert"
    finally:
        transport.close()


def test_messages_and_the_news_of_a_death_come_through():
    transport = opened(GREETING, ENTRY_FRAME, pack(PUBLISHED, b"one"), pack(GONE, b""))
    try:
        arrivals = []
        while not (arrivals and transport.gone):
            arrivals += transport.receive(10)
        assert arrivals == [(None, b"one")]
        assert transport.closed is None
    finally:
        transport.close()


def test_a_refusal_is_the_reason():
    with pytest.raises(SourceError, match=r"^gpu: no run is there$"):
        opened(GREETING, pack(REFUSAL, b"no run is there"))


def test_a_stream_that_never_greets_is_bounded():
    flood = [sys.executable, "-S", "-c", "while True: print('x' * 4096)"]
    with pytest.raises(SourceError, match="not a defaultpp bridge"):
        BridgeTransport(flood, "gpu")


def test_an_oversized_frame_ends_the_connection():
    # It comes after the first request, when the connection stands.
    code = "import os; os.write(1, bytes.fromhex(%r)); os.read(0, 9); os.write(1, b'\\xff' * 5)"
    words = [sys.executable, "-S", "-c", code % (GREETING + ENTRY_FRAME).hex()]
    transport = BridgeTransport(words, "gpu")
    try:
        transport.request(b"12345678", b"x")
        while transport.closed is None:
            transport.receive(10)
        assert "damaged" in transport.closed
    finally:
        transport.close()


def test_another_version_of_the_bridge_is_named():
    with pytest.raises(SourceError, match="of another version"):
        opened(GREETING, pack(ENTRY, b"{}"))


def test_a_missing_ssh_says_what_to_install():
    with pytest.raises(SourceError, match="install an ssh client"):
        BridgeTransport(["/nowhere/ssh"], "gpu")


@pytest.mark.parametrize(
    ("status", "said"),
    [(65, "no Python with defaultpp-monitor"), (255, "cannot be reached over ssh: boom"), (9, "9")],
)
def test_why_there_is_no_bridge(status, said):
    code = f"import sys; print('boom', file=sys.stderr); sys.exit({status})"
    with pytest.raises(SourceError, match=said):
        BridgeTransport([sys.executable, "-S", "-c", code], "gpu")
