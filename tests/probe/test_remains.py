"""Records that a run could no longer send, read from its trace."""

from collections import deque

import pytest

from probe.client import REMAINS_SECONDS, RunClient
from probe.remains import OutlivingTransport, Remains
from probe.schema import Backlog, End, Event, Hello, Welcome, decode_request, encode
from probe.trace import TraceWriter


def records(count, ended=True):
    made = [Event(seq=n, step=n, time=0.0, kind="note", text="x") for n in range(count)]
    return [*made, End(seq=count, step=count, time=0.0, reason="done")] if ended else made


@pytest.fixture
def trace(tmp_path):
    """Stores records and returns the path, as a registry entry would name it."""

    def store(stored):
        writer = TraceWriter(tmp_path / "t.trace")
        for record in stored:
            assert writer.append(encode(record))
        writer.close()
        return str(tmp_path / "t.trace")

    return store


class Mortal:
    """A run that greets, publishes what it is told to, and answers nothing once it is dead."""

    closed = None

    def __init__(self, known=0):
        self.alive, self.known = True, known
        self.incoming, self.asked = deque(), []

    def pollables(self):
        return ()

    def request(self, number, payload):
        request = decode_request(payload)
        self.asked.append(request)
        if self.alive and isinstance(request, Hello):
            welcome = Welcome(run="r", header=None, first_seq=0, next_seq=self.known, state="t")
            self.incoming.append((number, encode(welcome)))

    def receive(self, limit):
        return [self.incoming.popleft() for _ in range(min(limit, len(self.incoming)))]

    def close(self):
        pass


class Clock:
    now = 100.0

    def __call__(self):
        self.now += 0.001
        return self.now


def follow(run, trace):
    """A client of the run, that has been greeted."""
    transport = OutlivingTransport(run, trace, lambda: not run.alive)
    client = RunClient(transport, is_alive=lambda: run.alive, clock=Clock())
    client.read(timeout=0.0)
    return client


def read_after_death(client, run):
    run.alive = False
    found = []
    for _ in range(4):
        client._clock.now += 2  # of silence
        found += client.read(timeout=0.0)
    assert client.gone
    return [record.seq for record in found]


def test_what_was_lost_between_and_at_the_end_is_read_from_the_trace(trace):
    run = Mortal(known=3)
    client = follow(run, trace(records(9)))
    for record in records(9)[:2] + records(9)[5:7]:
        run.incoming.append((None, encode(record)))
    assert read_after_death(client, run) == list(range(10))
    assert client.lost == 0
    assert client.end is not None


def test_a_run_that_died_before_it_answered_is_read_whole(trace):
    run = Mortal()
    run.request = lambda number, payload: None
    client = follow(run, trace(records(4, ended=False)))
    assert read_after_death(client, run) == [0, 1, 2, 3]


@pytest.mark.parametrize("content", [None, b"", b"rubbish"])
def test_without_a_readable_trace_what_came_is_all(tmp_path, content):
    path = tmp_path / "t.trace"
    if content is not None:
        path.write_bytes(content)
    run = Mortal()
    client = follow(run, str(path))
    for record in [records(9)[0], records(9)[3]]:
        run.incoming.append((None, encode(record)))
    assert read_after_death(client, run) == [0, 3]
    assert client.lost == 2


def test_a_transport_that_never_answers_is_not_waited_for_long():
    run = Mortal(known=2)
    client = RunClient(run, is_alive=lambda: run.alive, clock=Clock())
    client.read(timeout=0.0)
    run.alive = False
    client._clock.now += 5
    client.read(timeout=0.0)
    assert not client.gone
    client._clock.now += REMAINS_SECONDS
    client.read(timeout=0.0)
    assert client.gone


def test_a_living_run_is_asked_itself(trace):
    run = Mortal(known=3)
    client = follow(run, trace(records(9)))
    client.read(timeout=0.0)
    assert any(isinstance(request, Backlog) for request in run.asked)
    assert client.next_seq == 0


def test_a_long_trace_comes_in_parts(trace):
    remains = Remains(trace(records(50)))
    found, first, more = [], 7, True
    while more:
        part = remains.part(first, 40, limit_bytes=200)
        assert len(part.records) < 20
        found += part.records
        first, more = part.next_seq, part.more
    assert found == [encode(record) for record in records(50)[7:40]]
