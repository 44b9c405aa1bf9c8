import os
import threading
import time
from pathlib import Path

import pytest
import zmq
from publisher_peer import DEADLINE, Peer, Run, frame, header, note, until

from probe import registry
from probe.endpoint import EndpointError, new_keys
from probe.registry import new_entry
from probe.schema import Backlog, Control, End, Event, Header, Heartbeat, Hello, encode
from probe.trace import load


@pytest.fixture
def start(tmp_path, monkeypatch):
    """Starts publishers and monitors, and closes them with the test."""
    monkeypatch.setenv("DEFAULTPP_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("DEFAULTPP_RUNTIME_DIR", str(tmp_path / "r"))
    monkeypatch.setattr("probe.publisher.HEARTBEAT_SECONDS", 0.1)
    opened = []

    def make(kind=Run, *arguments, **options):
        opened.append(kind(*arguments, **options))
        return opened[-1]

    yield make
    for thing in reversed(opened):
        (thing.publisher if isinstance(thing, Run) else thing).close()


@pytest.mark.parametrize("endpoint", [None, "tcp://127.0.0.1:*"])
def test_who_joins_late_sees_the_same_records_as_who_was_there(start, tmp_path, endpoint):
    run = start(endpoint=endpoint, trace_path=tmp_path / "a.trace")
    early = start(Peer, run.entry)
    early.listen(lambda message: isinstance(message, Heartbeat))  # it is subscribed now
    run.fill(50, first=lambda seq: header(seq, run.entry))
    early.listen(lambda message: getattr(message, "seq", -1) == 50)
    late = start(Peer, run.entry)
    welcome = late.hello()
    assert welcome.run == run.entry.run
    assert isinstance(welcome.header, Header)
    assert (welcome.first_seq, welcome.next_seq, welcome.state) == (0, 51, "training")
    history = late.backlog()
    assert [record.seq for record in history] == list(range(51))
    assert history == [heard for heard in early.heard if not isinstance(heard, Heartbeat)]
    assert history == load(tmp_path / "a.trace")
    assert run.errors == []


def test_a_gap_is_filled_by_its_numbers(start):
    run = start()
    run.fill(100)
    peer = start(Peer, run.entry)
    until(lambda: peer.hello().next_seq == 100)
    assert [record.seq for record in peer.backlog(30, 40)] == list(range(30, 40))


def test_a_large_backlog_comes_in_parts_and_a_bounded_one_keeps_its_header(start):
    run = start(backlog_bytes=3_000_000)
    until(lambda: run.publisher.submit(header))
    for _ in range(60):
        until(lambda: run.publisher.submit(lambda seq: frame(seq, size=100_000)))
    peer = start(Peer, run.entry)
    until(lambda: peer.hello().next_seq == 61)
    seqs = [record.seq for record in peer.backlog()]
    assert seqs[0] == 0
    assert 30 < seqs[1] < 40
    assert seqs[1:] == list(range(seqs[1], 61))


def test_drafts_decide_what_gets_a_number(start):
    run = start()

    def fail(seq):
        raise RuntimeError("in the draft")

    drafts = [note, lambda seq: None, note, fail, lambda seq: "no record", lambda seq: note(99)]
    drafts += [lambda seq: frame(seq, size=33 * 1024 * 1024), note]
    for draft in drafts:
        assert run.publisher.submit(draft)
    peer = start(Peer, run.entry)
    until(lambda: peer.hello().next_seq == 4)
    assert [record.seq for record in peer.backlog()] == [0, 1, 2, 3]
    assert [str(error).split()[0] for error in run.errors] == ["in", "a", "a"]


def test_the_heartbeat_tells_the_state(start):
    run = start()
    run.fill(3)
    peer = start(Peer, run.entry)
    beat = peer.listen(lambda message: isinstance(message, Heartbeat) and message.last_seq == 2)
    assert (beat.run, beat.step, beat.state) == (run.entry.run, 7, "training")
    assert beat.overhead == 0.01


def test_submit_never_waits_and_counts_what_it_drops(start):
    run = start(queue_size=10)
    held, entered = threading.Event(), threading.Event()

    def stuck(seq):
        entered.set()
        held.wait(DEADLINE)

    assert run.publisher.submit(stuck)
    assert entered.wait(DEADLINE)
    taken = [run.publisher.submit(note) for _ in range(15)]
    assert taken == [True] * 10 + [False] * 5
    assert run.publisher.dropped == 5
    held.set()
    peer = start(Peer, run.entry)
    assert peer.listen(lambda m: isinstance(m, Heartbeat) and m.last_seq == 9).dropped == 5


def test_many_threads_may_submit(start):
    run = start(queue_size=10_000)
    threads = [threading.Thread(target=run.fill, args=(500,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    peer = start(Peer, run.entry)
    until(lambda: peer.hello().next_seq == 2000)
    assert [record.seq for record in peer.backlog()] == list(range(2000))


def test_a_slow_subscriber_holds_up_nobody(start):
    run = start(queue_size=4)
    slow = start(Peer, run.entry, rcvhwm=1)
    slow.listen(lambda message: isinstance(message, Heartbeat))
    for _ in range(1500):  # 30 MB, of which the slow one takes nothing
        until(lambda: run.publisher.submit(lambda seq: frame(seq, size=20_000)))
    until(lambda: slow.hello().next_seq == 1500)
    slow.listen(lambda message: isinstance(message, Heartbeat) and message.last_seq == 1499)
    received = {heard.seq for heard in slow.heard if not isinstance(heard, Heartbeat)}
    assert len(received) < 1500  # its queue was full, or this test shows nothing
    missing = min(set(range(1500)) - received)
    assert slow.backlog(missing, missing + 1)[0].seq == missing
    assert run.errors == []


def test_garbage_on_the_request_socket_is_counted_and_ignored(start):
    run = start()
    peer = start(Peer, run.entry)
    number = b"12345678"
    garbage = [
        [number, os.urandom(100)],
        [number, b""],
        [number, b"\x91" * 10_000],
        [number, encode(note(0))],
        [b"short", encode(Hello())],
        [number, encode(Hello()), b"more"],
        [encode(Hello())],
        [b""] * 1000,
    ]
    for frames in garbage:
        peer.requests.send_multipart(frames)
    assert peer.hello().run == run.entry.run
    assert run.publisher.rejected == len(garbage)
    peer.listen(lambda m: isinstance(m, Heartbeat) and m.rejected == len(garbage))
    assert run.errors == []


def test_garbage_on_the_publishing_socket_is_counted_and_ignored(start):
    run = start()
    peer = start(Peer, run.entry)
    rude = peer.context.socket(zmq.XSUB)
    rude.connect(run.entry.publish)
    for payload in (b"garbage", b"", b"\xfe" + os.urandom(1000), encode(Hello())):
        rude.send(payload)
    until(lambda: run.publisher.rejected == 4)
    run.fill(1)
    peer.listen(lambda message: isinstance(message, Heartbeat) and message.last_seq == 0)
    assert run.errors == []


@pytest.mark.parametrize("which", ["publish", "control"])
def test_what_does_not_speak_the_protocol_at_all_is_counted(start, which):
    import socket

    run = start()
    path = getattr(run.entry, which).removeprefix("ipc://")
    for payload in (b"\xff" * 500, b"GET / HTTP/1.1\r\n\r\n" * 50):
        with socket.socket(socket.AF_UNIX) as stranger:
            stranger.connect(path)
            stranger.sendall(payload)
    until(lambda: run.publisher.rejected >= 2)
    assert start(Peer, run.entry).hello().run == run.entry.run


def test_an_oversized_request_is_refused_by_the_socket(start):
    run = start()
    rude = start(Peer, run.entry)
    assert rude.ask(b"x" * 1_000_000, timeout=0.3) is None
    assert run.publisher.rejected == 0  # it did not even reach the probe's thread
    assert start(Peer, run.entry).hello().run == run.entry.run


def test_without_the_right_keys_tcp_answers_nothing(start):
    run = start(endpoint="tcp://127.0.0.1:*")
    assert len(run.entry.key) == 80
    keyless = start(Peer, run.entry, key="", subscribe=False)
    wrong_server = start(Peer, run.entry, key=new_keys().access_key, subscribe=False)
    # It knows the probe's public key, yet not the secret that belongs to its monitors.
    half = run.entry.key[:40] + new_keys().client_secret
    wrong_client = start(Peer, run.entry, key=half, subscribe=False)
    for intruder in (keyless, wrong_server, wrong_client):
        intruder.requests.send_multipart([b"12345678", encode(Control(action="pause"))])
    until(lambda: run.publisher.rejected >= 3)
    assert start(Peer, run.entry).hello().run == run.entry.run
    for intruder in (keyless, wrong_server, wrong_client):
        assert not intruder.requests.poll(0)
    assert run.actions == []


def test_a_pause_lapses_with_its_monitor(start, monkeypatch):
    monkeypatch.setattr("probe.lease.PAUSE_LEASE_SECONDS", 0.3)
    run = start()
    peer = start(Peer, run.entry)
    assert peer.ask(Control(action="pause")).ok
    peer.close()
    until(lambda: len(run.actions) == 2)
    assert [action for action, _ in run.actions] == ["pause", "resume"]
    assert {name for _, name in run.actions} == {"defaultpp-probe"}


def test_controls_are_carried_out_and_answered(start):
    run = start()
    peer = start(Peer, run.entry)
    for action in ("sample", "pause", "pause", "resume"):
        done = peer.ask(Control(action=action))
        assert (done.ok, done.text) == (True, action)
    run.refuse = True
    done = peer.ask(Control(action="pause"))
    assert not done.ok
    assert "cannot do it" in done.text
    assert [str(error) for error in run.errors] == ["cannot do it"]
    run.refuse = False
    run.publisher.close()
    assert [action for action, _ in run.actions] == ["sample", "pause", "pause", "resume", "pause"]


def test_a_paused_training_is_released_at_the_end(start):
    run = start()
    assert start(Peer, run.entry).ask(Control(action="pause")).ok
    run.publisher.close()
    assert [action for action, _ in run.actions] == ["pause", "resume"]


def test_closing_writes_the_end_and_leaves_nothing(start, tmp_path):
    run = start(trace_path=tmp_path / "a.trace")
    peer = start(Peer, run.entry)
    peer.listen(lambda message: isinstance(message, Heartbeat))
    assert registry.list_runs() == [run.entry]
    assert run.entry.trace == str(tmp_path / "a.trace")
    run.fill(200)
    run.publisher.close("finished")
    run.publisher.close("again")
    records = load(tmp_path / "a.trace")
    assert len(records) == 201
    assert isinstance(records[-1], End)
    assert (records[-1].reason, records[-1].step, records[-1].seq) == ("finished", 7, 200)
    assert peer.listen(lambda message: isinstance(message, End)).seq == 200
    assert peer.listen(lambda message: isinstance(message, Heartbeat)).state == "closed"
    assert not run.publisher.submit(note)
    assert registry.list_runs() == []
    assert os.listdir(tmp_path / "r") == []
    assert not [t for t in threading.enumerate() if t.name == "defaultpp-probe"]
    assert run.errors == []


def test_closing_does_not_wait_for_a_draft_that_hangs(start):
    run = start()
    held, entered = threading.Event(), threading.Event()
    run.publisher.submit(lambda seq: (entered.set(), held.wait(DEADLINE), None)[2])
    assert entered.wait(DEADLINE)
    began = time.monotonic()
    run.publisher.close(timeout=0.2)
    assert time.monotonic() - began < DEADLINE / 2
    held.set()
    run.publisher.close()
    assert not [t for t in threading.enumerate() if t.name == "defaultpp-probe"]


def test_closing_from_an_error_in_the_thread(start, tmp_path):
    run = start(trace_path=tmp_path / "a.trace")
    run.publisher._on_error = lambda error: run.publisher.close(f"probe off: {error}")
    run.publisher.submit(lambda seq: 1 // 0)
    until(lambda: not [t for t in threading.enumerate() if t.name == "defaultpp-probe"])
    assert "probe off" in load(tmp_path / "a.trace")[-1].reason


def test_without_sockets_the_trace_goes_on(start, tmp_path):
    run = start(endpoint="tcp://0.0.0.0:5555", trace_path=tmp_path / "a.trace")
    run.fill(3)
    run.publisher.close()
    assert len(load(tmp_path / "a.trace")) == 4
    assert [type(error) for error in run.errors] == [EndpointError]


def test_a_taken_port_is_an_error_once(start, tmp_path):
    first = start(endpoint="tcp://127.0.0.1:*")
    port = int(first.entry.publish.rpartition(":")[2])
    second = start(endpoint=f"tcp://127.0.0.1:{port}", trace_path=tmp_path / "a.trace")
    second.fill(1)
    second.publisher.close()
    assert [type(error) for error in second.errors] == [EndpointError]
    assert second.entry.publish == ""
    assert len(load(tmp_path / "a.trace")) == 2
    assert start(Peer, first.entry).hello().run == first.entry.run


def test_without_a_trace_the_sockets_go_on(start, tmp_path):
    (tmp_path / "train.py").write_text("import torch")
    run = start(trace_path=tmp_path / "train.py")
    run.fill(3)
    peer = start(Peer, run.entry)
    until(lambda: peer.hello().next_seq == 3)
    assert run.entry.trace == ""
    assert len(run.errors) == 1


def test_without_a_registry_everything_else_goes_on(start, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("DEFAULTPP_STATE_DIR", str(tmp_path / "file"))
    run = start()
    assert start(Peer, run.entry).hello().run == run.entry.run
    assert len(run.errors) == 1


def test_broken_callbacks_do_not_end_the_thread(start):
    run = start()

    def broken(*_):
        raise KeyError("callback")

    run.publisher._status = run.publisher._on_error = broken
    run.publisher.submit(broken)
    run.fill(1)
    peer = start(Peer, run.entry)
    welcome = until(lambda: (w := peer.hello()).next_seq == 1 and w)
    assert welcome.state == "off"


def test_a_thinned_trace_says_so(start, tmp_path):
    run = start(trace_path=tmp_path / "a.trace", trace_bytes=20_000)
    for _ in range(100):
        until(lambda: run.publisher.submit(frame))
    run.publisher.close()
    records = load(tmp_path / "a.trace")
    notes = [record.text for record in records if isinstance(record, Event)]
    assert len(notes) == 1
    assert "few are stored" in notes[0]
    assert isinstance(records[-1], End)
    assert len(records) < 40
    assert records[-1].seq == 101


def test_an_idle_publisher_sleeps(start, monkeypatch):
    monkeypatch.setattr("probe.publisher.HEARTBEAT_SECONDS", 0.5)
    run = start()
    turns = []
    turn = run.publisher._turn
    run.publisher._turn = lambda: (turns.append(1), turn())
    peer = start(Peer, run.entry)
    for _ in range(2):
        peer.listen(lambda message: isinstance(message, Heartbeat))
    # Handshakes and two heartbeats: a thread that polls hot would turn thousands of times.
    assert len(turns) < 40


def test_a_run_that_is_not_started_or_closed_early_does_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("DEFAULTPP_STATE_DIR", str(tmp_path / "state"))
    from probe.publisher import Publisher, Status

    publisher = Publisher(
        new_entry("x"),
        on_control=lambda action: None,
        status=Status,
        on_error=lambda error: None,
        trace_path=Path(tmp_path / "a.trace"),
    )
    publisher.close()
    publisher.start()
    assert not publisher.submit(note)
    assert not (tmp_path / "a.trace").exists()


def test_a_flood_of_backlog_requests_from_one_who_never_reads_is_harmless(start):
    run = start()
    for _ in range(20):
        until(lambda: run.publisher.submit(lambda seq: frame(seq, size=900_000)))
    flood = start(Peer, run.entry, subscribe=False)
    for _ in range(300):
        flood.requests.send_multipart([b"12345678", encode(Backlog(first=0))])
    other = start(Peer, run.entry)
    until(lambda: other.hello().next_seq == 20)
    assert run.errors == []
