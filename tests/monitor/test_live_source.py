"""The sentences of a live source, over a client that the test sets."""

import pytest
from streams import end, event, frame, header

from monitor.sources.live import NO_ANSWER_SECONDS, SILENT_SECONDS, LiveSource, open_endpoint
from monitor.sources.source import SourceError
from probe.schema import Control, Done, Heartbeat, Welcome


class FakeClient:
    def __init__(self):
        self.records = []
        self.welcome = Welcome(run="r", header=None, first_seq=0, next_seq=0, state="training")
        self.heartbeat = None
        self.silence = 0.0
        self.gone = self.replaced = False
        self.broken = None
        self.state = "training"
        self.ignored = 0
        self.reply = Done(ok=True, text="done so")
        self.asked = []
        self.closed = False

    def read(self, limit, timeout):
        taken, self.records = self.records[:limit], self.records[limit:]
        return taken

    def request(self, message, timeout):
        self.asked.append(message)
        return self.reply

    def close(self):
        self.closed = True


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def client():
    return FakeClient()


def source_of(client, **options):
    return LiveSource(client, "run (ipc)", name="bert-7", process="pid 4", **options)


def test_a_connected_run_is_live_and_says_so_once(client):
    source = source_of(client)
    client.heartbeat = Heartbeat(run="r", last_seq=3, step=1, state="training", overhead=0.01)
    first, second = source.read(), source.read()
    assert (first.link, first.text) == ("live", "Connected to bert-7.")
    assert (second.link, second.text) == ("live", "")
    assert first.overhead == pytest.approx(0.01)


def test_connecting_tells_after_a_while_that_nobody_answers(client):
    client.welcome = None
    clock = Clock()
    source = source_of(client, clock=clock)
    assert source.read().text == ""
    clock.now = NO_ANSWER_SECONDS + 1
    batch = source.read()
    assert (batch.link, "No answer from bert-7" in batch.text) == ("connecting", True)


def test_silence_is_told_and_a_new_word_revives(client):
    source = source_of(client)
    source.read()
    client.silence = SILENT_SECONDS + 1
    assert source.read().link == "silent"
    client.silence = 0.0
    assert source.read().link == "live"


def test_a_run_that_is_gone_is_lost_only_after_all_was_delivered(client):
    source = source_of(client, trace="/t/x.trace")
    client.records = [header(), frame(1, 0)]
    client.gone = True
    assert source.read(limit=1).link == "live"
    assert source.read(limit=1).link == "live"
    batch = source.read()
    assert batch.link == "lost"
    assert "bert-7 (pid 4) is gone" in batch.text
    assert "/t/x.trace" in batch.text


def test_a_run_that_ended_in_order_stays_ended(client):
    source = source_of(client)
    client.records = [event(0, 7), end(1, 8)]
    batch = source.read()
    assert (batch.link, batch.text) == ("ended", "bert-7 ended at step 8: done.")
    client.gone = True
    client.silence = 100
    assert source.read().link == "ended"


def test_a_broken_connection_is_lost(client):
    source = source_of(client)
    client.broken = "The connection to gpu broke."
    batch = source.read()
    assert batch.link == "lost"
    assert batch.text.startswith("The connection to gpu broke.")


def test_another_run_at_the_address_is_lost(client):
    client.replaced = True
    assert source_of(client).read().link == "lost"


def test_control_passes_on_the_runs_own_sentence(client):
    source = source_of(client)
    source.read()
    assert source.send(Control(action="pause")) == "done so"
    client.reply = None
    assert "No answer from bert-7" in source.send(Control(action="sample"))


def test_leaving_lets_a_paused_run_go_on(client):
    source = source_of(client)
    source.read()
    source.send(Control(action="pause"))
    source.close()
    source.close()
    assert client.asked[-1] == Control(action="resume")
    assert client.closed


def test_leaving_asks_nothing_of_a_run_that_was_not_paused(client):
    source = source_of(client)
    source.read()
    source.close()
    assert client.asked == []


def test_nothing_is_asked_of_a_run_that_is_gone(client):
    source = source_of(client)
    client.gone = True
    source.read()
    assert "no longer running" in source.send(Control(action="pause"))
    assert client.asked == []


@pytest.mark.parametrize(
    "address", ["http://x", "tcp://host", "tcp://host:0", "tcp://host:99999", "ipc://", "tcp://:5"]
)
def test_an_address_that_is_none_is_one_clear_sentence(address):
    with pytest.raises(SourceError, match="is not an address"):
        open_endpoint(address)


def test_tcp_without_keys_says_what_to_set(monkeypatch):
    monkeypatch.delenv("DEFAULTPP_KEYS", raising=False)
    with pytest.raises(SourceError, match="set DEFAULTPP_KEYS"):
        open_endpoint("tcp://127.0.0.1:5555")
