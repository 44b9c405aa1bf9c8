import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from publisher_peer import DEADLINE, Peer, Run, note, until

from probe import registry
from probe.schema import End
from probe.trace import load

HERE = Path(__file__).parent


@pytest.fixture
def places(tmp_path, monkeypatch):
    monkeypatch.setenv("DEFAULTPP_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("DEFAULTPP_RUNTIME_DIR", str(tmp_path / "r"))
    return tmp_path


def script(places, body):
    code = (
        f"import sys; sys.path.insert(0, {str(HERE)!r})\n"
        "import os, time, pathlib\n"
        "from publisher_peer import *\n"
        f"run = Run(trace_path=pathlib.Path({str(places / 'a.trace')!r}))\n" + body
    )
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)


def test_a_forked_child_is_harmless(places):
    run = Run(trace_path=places / "a.trace")
    run.fill(5)
    peer = Peer(run.entry)
    until(lambda: peer.hello().next_seq == 5)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            accepted = run.publisher.submit(note)
            run.publisher.close("in the child")
            run.publisher.start()
            code = 2 if accepted else 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    run.fill(5)
    until(lambda: peer.hello().next_seq == 10)
    assert registry.list_runs() == [run.entry]
    peer.close()
    run.publisher.close()
    records = load(places / "a.trace")
    assert [record.seq for record in records] == list(range(11))
    assert run.errors == []


def test_a_forked_child_that_exits_in_order_is_harmless(places):
    """The interpreter's own end: exit handlers, and the sockets' finalizers."""
    process = script(
        places,
        "run.fill(3)\n"
        "if os.fork() == 0: sys.exit(0)\n"
        "print(os.wait()[1], flush=True)\n"
        "run.fill(3)\n"
        "peer = Peer(run.entry)\n"
        "until(lambda: peer.hello().next_seq == 6)\n"
        "peer.close()\n"
        "print(len(run.errors))\n",
    )
    output = process.communicate(timeout=3 * DEADLINE)[0]
    assert output.split() == ["0", "0"]
    assert process.returncode == 0
    assert [record.seq for record in load(places / "a.trace")] == list(range(7))


def test_the_end_of_the_interpreter_writes_the_end(places):
    process = script(places, "run.fill(100)\n")
    process.communicate(timeout=3 * DEADLINE)
    assert process.returncode == 0
    records = load(places / "a.trace")
    assert len(records) == 101
    assert isinstance(records[-1], End)
    assert "ended" in records[-1].reason
    assert registry.list_runs() == []
    assert os.listdir(places / "r") == []


def test_a_killed_run_leaves_a_readable_trace_and_is_swept(places):
    process = script(
        places,
        "run.fill(100)\n"
        "peer = Peer(run.entry)\n"
        "until(lambda: peer.hello().next_seq == 100)\n"
        "print('ready', flush=True)\n"
        "while True: run.fill(1); time.sleep(0.001)\n",
    )
    try:
        assert process.stdout.readline() == "ready\n"
        (entry,) = registry.list_runs()
        assert entry.pid == process.pid
        assert entry.alive
    finally:
        process.kill()
        process.communicate()
    assert not entry.alive
    records = load(places / "a.trace")
    assert len(records) >= 100
    assert [record.seq for record in records] == list(range(len(records)))
    assert not isinstance(records[-1], End)
    assert len(os.listdir(places / "r")) == 2
    assert registry.list_runs() == []
    assert os.listdir(places / "r") == []


def test_a_stopped_run_comes_back(places):
    """As a batch system suspends it: nothing is lost, nobody is told it died."""
    import signal

    process = script(
        places,
        "run.fill(10)\nprint('ready', flush=True)\nwhile True: time.sleep(0.05)\n",
    )
    try:
        assert process.stdout.readline() == "ready\n"
        (entry,) = registry.list_runs()
        peer = Peer(entry)
        until(lambda: peer.hello().next_seq == 10)
        process.send_signal(signal.SIGSTOP)
        time.sleep(0.1)
        assert registry.list_runs() == [entry]
        process.send_signal(signal.SIGCONT)
        assert peer.hello().next_seq == 10
        peer.close()
    finally:
        process.kill()
        process.communicate()
