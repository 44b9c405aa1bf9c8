"""A publisher with recorded callbacks and a plain monitor, for the publisher's tests."""

import threading
import time

import zmq

from probe.endpoint import secure_client
from probe.publisher import Publisher, Status
from probe.registry import new_entry
from probe.schema import (
    Anatomy,
    Backlog,
    Done,
    Event,
    Frame,
    Header,
    Hello,
    decode_published,
    decode_record,
    decode_reply,
    encode,
)

DEADLINE = 20.0


def until(condition, what="the condition"):
    """Poll until ``condition()`` is truthy; returns it."""
    end = time.monotonic() + DEADLINE
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.005)
    raise AssertionError(f"{what} did not come true in {DEADLINE} s")


def header(seq=0, entry=None, revision=0):
    anatomy = Anatomy("Bert", "encoder", 2, 8, 2, 2, 4, 10, 100, "post", "learned", ())
    run = entry.run if entry else "run"
    return Header(
        seq=seq,
        revision=revision,
        run=run,
        name="bert",
        created=0.0,
        host="here",
        pid=1,
        anatomy=anatomy,
        metrics=(),
        columns=(),
    )


def note(seq, step=0, text="x"):
    return Event(seq=seq, step=step, time=0.0, kind="note", text=text)


def frame(seq, step=0, size=1000):
    return Frame(seq=seq, step=step, time=0.0, values=bytes(size))


class Run:
    """A started publisher; closes with the test."""

    def __init__(self, **options):
        self.errors = []
        self.actions = []
        self.refuse = False
        self.state = Status(state="training", step=7, overhead=0.01)
        self.publisher = Publisher(
            options.pop("entry", None) or new_entry("bert"),
            on_control=self.on_control,
            status=lambda: self.state,
            on_error=self.errors.append,
            **options,
        )
        self.publisher.start()
        assert self.publisher.wait_opened(DEADLINE)

    @property
    def entry(self):
        return self.publisher.entry

    def on_control(self, action):
        self.actions.append((action, threading.current_thread().name))
        if self.refuse:
            raise ValueError("cannot do it")
        return Done(ok=True, text=action)

    def fill(self, count, first=None):
        if first is not None:
            until(lambda: self.publisher.submit(first))
        for step in range(count):
            until(lambda step=step: self.publisher.submit(lambda seq: note(seq, step)))


class Peer:
    """A monitor: asks, listens."""

    def __init__(self, entry, key=None, subscribe=True, rcvhwm=10_000):
        self.context = zmq.Context()
        key = entry.key if key is None else key
        self.requests = self._connect(zmq.DEALER, entry.control, key)
        self.stream = None
        if subscribe:
            self.stream = self.context.socket(zmq.SUB)
            self.stream.subscribe(b"")
            self.stream.rcvhwm = rcvhwm
            secure_client(self.stream, key)
            self.stream.connect(entry.publish)
            self.heard = []

    def _connect(self, kind, endpoint, key):
        socket = self.context.socket(kind)
        socket.linger = 1000
        secure_client(socket, key)
        socket.connect(endpoint)
        return socket

    def ask(self, message, number=b"12345678", timeout=DEADLINE):
        payload = message if isinstance(message, bytes) else encode(message)
        self.requests.send_multipart([number, payload])
        if not self.requests.poll(timeout * 1000):
            return None
        echoed, reply = self.requests.recv_multipart()
        assert echoed == number
        return decode_reply(reply)

    def hello(self):
        return self.ask(Hello(client="test"))

    def backlog(self, first=0, last=None):
        records, more = [], True
        while more:
            part = self.ask(Backlog(first=first, last=last))
            assert sum(map(len, part.records)) < 1_100_000
            records += [decode_record(payload) for payload in part.records]
            first, more = part.next_seq, part.more
        return records

    def listen(self, wanted):
        """Published messages until ``wanted`` says so of one of them."""
        end = time.monotonic() + DEADLINE
        while time.monotonic() < end:
            if self.stream.poll(100):
                message = decode_published(self.stream.recv())
                self.heard.append(message)
                if wanted(message):
                    return message
        raise AssertionError("the message waited for was not published")

    def close(self):
        self.context.destroy(linger=0)
