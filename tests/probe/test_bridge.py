"""The bridge as a process, without ssh: what it refuses, when it ends, what it never imports."""

import os
import subprocess
import sys
import threading

import msgspec
import pytest

from probe.bridge import Refusal, choose
from probe.bridge_frames import (
    ENTRY,
    PUBLISHED,
    REFUSAL,
    REPLY,
    REQUEST,
    FrameReader,
    pack,
)
from probe.publisher import Publisher
from probe.registry import RunEntry, new_entry, register
from probe.schema import Done, Event, Hello, Welcome, decode_published, decode_reply, encode
from probe.status import Status


@pytest.fixture(autouse=True)
def places(monkeypatch, tmp_path_factory):
    directory = tmp_path_factory.mktemp("b")
    (directory / "r").mkdir(mode=0o700)
    monkeypatch.setenv("DEFAULTPP_RUNTIME_DIR", str(directory / "r"))
    monkeypatch.setenv("DEFAULTPP_STATE_DIR", str(directory / "s"))


@pytest.fixture
def publisher():
    publishing = Publisher(
        new_entry("bert"),
        on_control=lambda action: Done(ok=True, text=action),
        status=Status,
        on_error=lambda error: None,
    )
    publishing.start()
    assert publishing.wait_opened(30)
    yield publishing
    publishing.close()


class Bridge:
    """A bridge process and what came out of it so far."""

    def __init__(self, *words):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "probe.bridge", *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self.reader = FrameReader(greeting=True)
        self.frames = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            stream.close()

    def first(self, wanted):
        """Body of the first frame of that kind; the process is killed if it never comes."""
        guard = threading.Timer(60, self.process.kill)
        guard.start()
        try:
            while True:
                for kind, body in self.frames:
                    if kind == wanted:
                        return body
                data = os.read(self.process.stdout.fileno(), 65536)
                assert data, self.process.stderr.read()
                self.frames += self.reader.feed(data)
        finally:
            guard.cancel()

    def send(self, data):
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def status(self):
        return self.process.wait(30)


def test_it_never_imports_torch():
    code = "import sys, probe.bridge; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_requests_and_the_stream_are_carried_and_the_key_stays(publisher):
    with Bridge("--run", "bert") as bridge:
        entry = msgspec.json.decode(bridge.first(ENTRY), type=RunEntry)
        assert (entry.run, entry.key) == (publisher.entry.run, "")
        bridge.send(pack(REQUEST, b"12345678" + encode(Hello())))
        reply = bridge.first(REPLY)
        assert reply[:8] == b"12345678"
        assert isinstance(decode_reply(reply[8:]), Welcome)
        publisher.submit(lambda seq: Event(seq=seq, step=1, time=0.0, kind="note", text="x"))
        assert decode_published(bridge.first(PUBLISHED))
        bridge.process.stdin.close()
        assert bridge.status() == 0


@pytest.mark.parametrize("words", [(), ("--run", "nobody")])
def test_without_a_run_it_refuses_in_a_sentence(words):
    with Bridge(*words) as bridge:
        assert b"probe.attach(model, optimizer)" in bridge.first(REFUSAL)
        assert bridge.status() == 3


def test_nonsense_on_its_input_ends_it_quietly(publisher):
    with Bridge() as bridge:
        bridge.first(ENTRY)
        bridge.send(b"\xff" * 100)
        assert bridge.status() == 0
        assert bridge.process.stderr.read() == b""


def test_a_monitor_that_leaves_ends_it_quietly(publisher):
    with Bridge() as bridge:
        bridge.first(ENTRY)
        bridge.process.stdout.close()
        assert bridge.status() == 0  # the next heartbeat finds nobody
        assert bridge.process.stderr.read() == b""


def test_several_runs_need_a_name():
    for name in ("bert", "gpt2"):
        entry = new_entry(name)
        register(msgspec.structs.replace(entry, publish="ipc:///x", control="ipc:///y"))
    with pytest.raises(Refusal, match="several runs"):
        choose(None)
    assert choose("gpt2").name == "gpt2"


def test_the_list_names_runs():
    register(new_entry("bert"))
    done = subprocess.run(
        [sys.executable, "-m", "probe.bridge", "--list"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("bert\t")
