"""The client against a scripted run: no sockets, a clock that the test turns."""

import threading
from collections import deque

import pytest

from probe.client import READY_LIMIT, RETRY_SECONDS, RunClient
from probe.schema import (
    Backlog,
    BacklogPart,
    Control,
    Done,
    End,
    Event,
    Heartbeat,
    Hello,
    Welcome,
    decode_request,
    encode,
)


def event(seq, text="x"):
    return Event(seq=seq, step=seq, time=0.0, kind="note", text=text)


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        self.now += 0.001  # a wait that never ends would hang the test
        return self.now


class ScriptedRun:
    """Holds a stream and answers like a run; ``drop`` loses requests, ``mute`` all of them."""

    closed = None

    def __init__(self, records=0):
        self.records = [event(n) for n in range(records)]
        self.first = 0
        self.part_size = 3
        self.incoming = deque()
        self.asked = []
        self.drop = 0
        self.alive = True

    def pollables(self):
        return ()

    def request(self, number, payload):
        message = decode_request(payload)
        self.asked.append(message)
        if self.drop:
            self.drop -= 1
            return
        if isinstance(message, Hello):
            reply = Welcome(
                run="r1", header=None, first_seq=self.first, next_seq=len(self.records), state="t"
            )
        elif isinstance(message, Backlog):
            held = [r for r in self.records if r.seq >= self.first]
            wanted = [
                r
                for r in held
                if message.first <= r.seq and (not message.last or r.seq < message.last)
            ]
            chosen = wanted[: self.part_size]
            following = chosen[-1].seq + 1 if chosen else message.first
            reply = BacklogPart(
                records=tuple(encode(r) for r in chosen),
                next_seq=following,
                more=len(wanted) > len(chosen),
            )
        else:
            reply = Done(ok=True, text=message.action)
        self.incoming.append((number, encode(reply)))

    def publish(self, message):
        self.incoming.append((None, message if isinstance(message, bytes) else encode(message)))

    def receive(self, limit):
        return [self.incoming.popleft() for _ in range(min(limit, len(self.incoming)))]

    def close(self):
        pass


def client_of(run, **options):
    return RunClient(run, clock=Clock(), **options)


def read_all(client, rounds=40):
    return [record for _ in range(rounds) for record in client.read(timeout=0.0)]


def numbers(records):
    return [record.seq for record in records]


def test_history_comes_before_what_follows_and_nothing_twice():
    run = ScriptedRun(records=8)
    client = client_of(run)
    run.publish(event(8))  # published while the history is still being asked for
    run.records.append(event(8))
    assert numbers(read_all(client)) == list(range(9))
    run.publish(event(9))
    assert numbers(read_all(client)) == [9]


def test_a_lost_record_is_asked_for_again():
    run = ScriptedRun(records=2)
    client = client_of(run)
    read_all(client)
    run.records += [event(2), event(3)]
    run.publish(event(3))  # 2 was lost on the way
    assert numbers(read_all(client)) == [2, 3]
    assert run.asked[-1] == Backlog(first=2, last=3)


def test_a_heartbeat_reveals_that_the_last_records_were_lost():
    run = ScriptedRun(records=2)
    client = client_of(run)
    read_all(client)
    run.records += [event(2)]
    run.publish(Heartbeat(run="r1", last_seq=2, step=2, state="training"))
    assert numbers(read_all(client)) == [2]
    assert client.state == "training"


def test_unanswered_requests_are_sent_again():
    run = ScriptedRun(records=3)
    run.drop = 2
    client = client_of(run)
    assert read_all(client, rounds=5) == []
    client._clock.now += RETRY_SECONDS + 1
    read_all(client, rounds=5)
    client._clock.now += RETRY_SECONDS + 1
    assert numbers(read_all(client)) == [0, 1, 2]


def test_a_request_is_not_repeated_while_its_answer_may_still_come():
    run = ScriptedRun(records=3)
    run.drop = 1
    client = client_of(run)
    read_all(client, rounds=10)
    assert len(run.asked) == 1


def test_records_that_the_run_let_go_are_skipped_and_counted():
    run = ScriptedRun(records=10)
    run.first = 6
    client = client_of(run)
    assert numbers(read_all(client)) == [6, 7, 8, 9]
    assert client.lost == 6


def test_garbage_is_counted_and_ignored():
    run = ScriptedRun(records=1)
    client = client_of(run)
    run.publish(b"\xff\x00garbage")
    run.publish(b"")
    run.incoming.append((b"12345678", b"not a reply"))
    assert numbers(read_all(client)) == [0]
    assert client.ignored == 3


def test_an_unreadable_record_in_the_history_does_not_stop_what_follows():
    run = ScriptedRun(records=3)
    client = client_of(run)
    original = run.request

    def spoil(number, payload):
        original(number, payload)
        if isinstance(decode_request(payload), Backlog):
            run.incoming.pop()
            part = BacklogPart(
                records=(encode(event(0)), b"\xc1", encode(event(2))), next_seq=3, more=False
            )
            run.incoming.append((number, encode(part)))

    run.request = spoil
    assert numbers(read_all(client)) == [0, 2]
    assert (client.ignored, client.lost) == (1, 1)


def test_a_run_that_dies_is_noticed_after_all_it_sent_was_read():
    run = ScriptedRun(records=2)
    client = client_of(run, is_alive=lambda: run.alive)
    read_all(client)
    run.publish(event(2))
    run.alive = False
    client._clock.now += 5
    assert numbers(client.read(timeout=0.0)) == [2]
    assert not client.gone
    client._clock.now += 5
    read_all(client, rounds=3)
    assert client.gone


def test_a_live_but_silent_run_is_not_taken_for_dead():
    run = ScriptedRun(records=2)
    client = client_of(run, is_alive=lambda: True)
    read_all(client)
    client._clock.now += 60
    read_all(client, rounds=3)
    assert not client.gone
    assert client.silence > 50


def test_another_run_at_the_same_address_is_not_mixed_in():
    run = ScriptedRun(records=2)
    client = client_of(run)
    read_all(client)
    run.publish(Heartbeat(run="r2", last_seq=5, step=1, state="training"))
    run.publish(event(2))
    assert read_all(client) == []
    assert client.replaced


def test_the_end_is_delivered_and_remembered():
    run = ScriptedRun()
    run.records = [event(0), End(seq=1, step=4, time=0.0, reason="done")]
    client = client_of(run)
    assert numbers(read_all(client)) == [0, 1]
    assert client.end is not None and client.end.reason == "done"


def test_a_control_request_is_answered_without_a_reader():
    client = client_of(ScriptedRun())
    assert client.request(Control(action="pause")) == Done(ok=True, text="pause")


def test_a_control_request_is_answered_while_another_thread_reads():
    run = ScriptedRun(records=3)
    client = RunClient(run)
    stop = threading.Event()

    def reading():
        while not stop.is_set():
            client.read(timeout=0.05)

    reader = threading.Thread(target=reading)
    reader.start()
    try:
        reply = client.request(Control(action="resume"), timeout=20)
    finally:
        stop.set()
        reader.join(20)
    assert reply == Done(ok=True, text="resume")


def test_a_request_nobody_answers_ends_by_itself():
    run = ScriptedRun()
    run.drop = 1000
    client = client_of(run)
    assert client.request(Control(action="pause"), timeout=0.2) is None


@pytest.mark.parametrize("size", [1, 7, 500])
def test_a_read_returns_no_more_than_asked(size):
    run = ScriptedRun(records=20)
    run.part_size = 20
    client = client_of(run)
    first = client.read(limit=size, timeout=1.0)
    assert numbers(first) == list(range(min(size, 20)))


def test_a_slow_reader_makes_the_client_stop_taking_not_growing():
    run = ScriptedRun()
    client = client_of(run)
    for seq in range(READY_LIMIT + 5000):
        run.publish(event(seq))
    for _ in range(60):
        client.read(limit=0, timeout=0.0)
    assert len(client._ready) <= READY_LIMIT + 1000
    assert run.incoming
