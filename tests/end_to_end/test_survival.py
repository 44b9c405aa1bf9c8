"""Monitors and trainings that die, come late, or talk nonsense: real processes, real sockets."""

import signal
import subprocess
import sys

import pytest
import zmq
from training_processes import drain, monitor, wait_for

from monitor.sources.live import open_entry
from probe.registry import find, list_runs
from probe.schema import Control, Frame, Header, Heartbeat, encode
from probe.trace import load

WATCHING = """
import sys
from monitor.sources.live import open_entry
from probe.registry import find
source = open_entry(find(sys.argv[1]))
while True:
    batch = source.read()
    if batch.records:
        print(batch.records[-1].seq, flush=True)
"""


@pytest.fixture
def opened():
    sources = []

    def open_(name):
        sources.append(open_entry(find(name)))
        return sources[-1]

    yield open_
    for source in sources:
        source.close()


def numbers(records):
    return [record.seq for record in records]


def frames_of(records):
    return [record.step for record in records if isinstance(record, Frame)]


def test_killing_the_monitor_leaves_the_training_untouched(stand_in):
    training = stand_in()
    watcher = subprocess.Popen(
        [sys.executable, "-c", WATCHING, "standin"], stdout=subprocess.PIPE, text=True
    )
    with watcher:
        assert watcher.stdout.readline()
        watcher.send_signal(signal.SIGKILL)
        watcher.wait(30)
    step = training.step
    wait_for(lambda: training.step > step + 50, "further steps after the monitor's death")
    assert training.finish() == 0
    assert len(frames_of(load(training.trace))) == training.step + 1


def test_a_killed_training_leaves_its_trace_and_a_monitor_that_says_so(stand_in, opened):
    training = stand_in()
    source = opened("standin")
    before, _ = drain(source, lambda records, batch: len(frames_of(records)) > 20)
    training.kill()
    after, batch = drain(source, lambda records, batch: batch.link == "lost")
    assert "gone" in batch.text
    assert str(training.trace) in batch.text
    assert "stays" in batch.text
    # Everything that reached the disk was shown, in order, once.
    assert numbers(before + after) == numbers(load(training.trace))
    assert source.read(timeout=0.0).link == "lost"
    assert "no longer running" in source.send(Control(action="pause"))


def test_a_training_that_ends_in_order_is_ended_not_lost(stand_in, opened):
    training = stand_in("--steps", "30")
    source = opened("standin")
    records, batch = drain(source, lambda records, batch: batch.link == "ended")
    assert "the stand-in is done" in batch.text
    assert frames_of(records) == list(range(30))
    assert training.finish() == 0


def test_a_second_monitor_joins_late_and_has_the_same_history(stand_in, opened):
    training = stand_in()
    first = opened("standin")
    seen, _ = drain(first, lambda records, batch: len(frames_of(records)) > 100)
    second = opened("standin")
    history, _ = drain(second, lambda records, batch: len(records) >= len(seen))
    assert [encode(r) for r in history[: len(seen)]] == [encode(r) for r in seen]
    assert isinstance(history[0], Header)
    assert training.process.poll() is None


def test_garbage_to_either_socket_is_counted_and_ignored(stand_in, opened):
    training = stand_in()
    source = opened("standin")
    drain(source, lambda records, batch: batch.link == "live")
    entry = find("standin")
    context = zmq.Context()
    dealer = context.socket(zmq.DEALER)
    dealer.connect(entry.control)
    stranger = context.socket(zmq.SUB)  # subscriptions are the only thing a PUB socket takes
    stranger.connect(entry.publish)
    heard = context.socket(zmq.SUB)
    heard.subscribe(b"")
    heard.connect(entry.publish)
    try:
        for parts in ([b""], [b"x" * 8, b"\xff\x00"], [b"a"] * 9, [b"x" * 8, b"\x91" * 100_000]):
            dealer.send_multipart(parts)
        stranger.subscribe(b"\xff" * 1000)

        def rejected():
            from probe.schema import decode_published

            while heard.poll(0):
                message = decode_published(heard.recv())
                if isinstance(message, Heartbeat) and message.rejected >= 3:
                    return True
            return False

        wait_for(rejected, "a heartbeat that counts the garbage")
        step = training.step
        wait_for(lambda: training.step > step + 20, "further steps")
        _, batch = drain(source, lambda records, batch: len(records) > 20)
        assert batch.link == "live"
        assert source.send(Control(action="sample")) == "sample it is"
    finally:
        context.destroy(linger=0)


def test_a_foreign_publisher_is_counted_and_ignored(tmp_path):
    from monitor.sources.live import LiveSource
    from probe.client import RunClient
    from probe.transport import SocketTransport

    context = zmq.Context()
    publisher, router = context.socket(zmq.PUB), context.socket(zmq.ROUTER)
    ports = [s.bind_to_random_port("tcp://127.0.0.1") for s in (publisher, router)]
    transport = SocketTransport(*(f"tcp://127.0.0.1:{port}" for port in ports))
    source = LiveSource(RunClient(transport), "foreign")

    def talk(records, batch):
        publisher.send(b"\x00nonsense")
        publisher.send_multipart([b"two", b"parts"])
        if router.poll(0):
            peer, *_ = router.recv_multipart()
            router.send_multipart([peer, b"short", b"answer", b"of three"])
        return batch.ignored >= 10

    try:
        records, batch = drain(source, talk, "garbage that is counted")
        assert records == []
        assert batch.link == "connecting"
    finally:
        source.close()
        context.destroy(linger=0)


def test_pausing_reaches_the_training_and_ends_with_the_monitor(stand_in, opened):
    training = stand_in()
    source = opened("standin")
    drain(source, lambda records, batch: batch.link == "live")
    assert source.send(Control(action="pause")) == "pause it is"
    drain(source, lambda records, batch: batch.state == "paused", "the paused state")
    held = training.step
    assert training.step <= held + 1
    source.close()
    wait_for(lambda: training.step > held + 20, "further steps after the monitor left")


def test_an_entry_left_by_a_killed_training_is_swept(stand_in):
    training = stand_in()
    assert [entry.run for entry in list_runs()] == [training.run]
    training.kill()
    assert list_runs() == []


def test_watch_says_that_the_training_was_killed(stand_in):
    training = stand_in()
    process = monitor("watch", "--json")
    try:
        # The first line says it is there; the kill comes after the run itself was told.
        for line in process.stdout:
            if '"kind":"run"' in line:
                break
        training.kill()
        out, err = process.communicate(timeout=100)
    finally:
        process.kill()
    assert '"link":"lost"' in out
    assert process.returncode == 2, err
