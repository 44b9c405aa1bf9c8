import threading
import time

import msgspec
import pytest
from scripted_engine import ScriptedEngine
from streams import header

from monitor import reader as reader_module
from monitor.controlling import Controlling
from monitor.diagnosing import Diagnosing
from monitor.reader import Reader
from monitor.sources.fake import FakeReplay, FakeSource, Script, records
from monitor.sources.source import Batch
from monitor.stream_diagnosis import StreamDiagnosis
from probe.schema import Frame, Header


def until(condition, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "never happened"
        time.sleep(0.005)


def test_reader_hands_over_every_record_in_order():
    source = FakeSource(Script(), per_read=7)
    seen, drained = [], []
    reader = Reader(source, seen.extend)
    reader.start()
    while len(drained) < len(source.records):
        drained += [r for batch in reader.drain(limit=10) for r in batch.records]
    reader.stop()
    assert [r.seq for r in drained] == [r.seq for r in source.records]
    assert [r.seq for r in seen] == [r.seq for r in drained]
    assert source.closed.is_set()


def test_reader_waits_for_the_screen_instead_of_growing(monkeypatch):
    monkeypatch.setattr(reader_module, "QUEUE_RECORDS", 20)
    source = FakeSource(Script(steps=2000), per_read=10)
    reader = Reader(source, lambda records: None)
    reader.start()
    until(lambda: reader._held >= 20)
    assert reader._held <= 30
    total = 0
    while total < len(source.records):
        total += sum(len(batch.records) for batch in reader.drain(limit=5))
    reader.stop()


def test_small_batches_that_say_the_same_are_taken_in_as_one():
    source = FakeSource(Script(), per_read=7)
    reader = Reader(source, lambda records: None)
    reader.start()
    until(lambda: reader._held >= len(source.records))
    reader.stop()
    found = reader.drain(limit=10**6)
    assert [r.seq for batch in found for r in batch.records] == [r.seq for r in source.records]
    sizes = [batch.size for batch in found if batch.size]
    assert max(sizes) > 7
    assert max(sizes) <= reader_module.JOINED_RECORDS
    assert (
        reader_module._joined(Batch((header(),), link="live"), Batch((header(),), link="lost"))
        is None
    )


def test_a_source_that_raises_is_told_as_lost():
    class Broken(FakeSource):
        def read(self, limit=500, timeout=0.25):
            raise OSError("disk on fire")

    reader = Reader(Broken(), lambda records: None)
    reader.start()
    batches = []
    until(lambda: batches.extend(reader.drain()) or batches)
    reader.stop()
    assert (batches[0].link, batches[0].text) == ("lost", "reading stopped: disk on fire")


def test_every_frame_goes_through_the_engine_in_order():
    engines = []

    def factory(header):
        engines.append(ScriptedEngine(header))
        return engines[-1]

    everything = records(Script(fault_step=100))
    diagnosing = Diagnosing(factory)
    diagnosing.start()
    assert diagnosing.state.phase == "loading"
    for record in everything:
        diagnosing.feed([record])
    until(lambda: diagnosing.idle and diagnosing.state.diagnosis is not None)
    assert engines[0].steps == [r.step for r in everything if isinstance(r, Frame)]
    assert diagnosing.state.diagnosis.first_flagged_step == 100

    diagnosing.feed(everything[:5])
    until(lambda: diagnosing.idle and diagnosing.state.diagnosis is not None)
    assert len(engines) == 2
    assert diagnosing.state.diagnosis.verdict == "insufficient"
    diagnosing.stop()


def test_a_later_header_of_the_run_is_bound_to_the_engine_there_is():
    engines = []

    def factory(header):
        engines.append(ScriptedEngine(header))
        return engines[-1]

    everything = records(Script(fault_step=100))
    revised = msgspec.structs.replace(everything[0], revision=1)
    diagnosing = Diagnosing(factory)
    diagnosing.start()
    half = len(everything) // 2
    diagnosing.feed(everything[:half])
    diagnosing.feed([revised])
    until(lambda: diagnosing.idle)
    assert diagnosing.state.diagnosis is not None, "the verdict stays while nothing new came"
    diagnosing.feed(everything[half:])
    until(lambda: diagnosing.idle)
    (engine,) = engines
    assert engine.header is revised
    assert engine.steps == [r.step for r in everything if isinstance(r, Frame)]
    found = diagnosing.take()
    assert found[0] is None
    assert [d.last_step for d in found[1:]] == engine.steps

    diagnosing.feed([msgspec.structs.replace(revised, run="another", revision=2)])
    until(lambda: len(engines) == 2 and diagnosing.idle)
    assert diagnosing.take() == [None]
    diagnosing.stop()


@pytest.mark.parametrize("revision", [0, 1])
def test_another_ranks_header_changes_nothing(revision):
    engines = []

    def factory(header):
        engines.append(ScriptedEngine(header))
        return engines[-1]

    everything = records(Script(fault_step=100))
    own = everything[0]
    other = msgspec.structs.replace(own, rank=1, columns=own.columns[:3], revision=revision)
    half = len(everything) // 2
    together = [*everything[:half], other, *everything[half:]]
    stream = StreamDiagnosis(factory)
    for record in together:
        stream.take(record)
    diagnosing = Diagnosing(factory)
    diagnosing.start()
    diagnosing.feed(together)
    until(lambda: diagnosing.idle)
    diagnosing.stop()
    assert len(engines) == 2, "one each"
    for engine, verdict in zip(engines, (stream.current, diagnosing.state.diagnosis), strict=True):
        assert engine.header is own
        assert engine.steps == [r.step for r in everything if isinstance(r, Frame)]
        assert verdict.first_flagged_step == 100
    assert stream.header is own
    assert [d.last_step for d in diagnosing.take()[1:]] == engines[1].steps


@pytest.mark.parametrize("where", ["start", "update"])
def test_an_error_of_the_engine_is_one_line(where):
    class Failing:
        def __init__(self, header):
            if where == "start":
                raise RuntimeError("no weights\nmore")

        def update(self, frame):
            raise RuntimeError("no weights\nmore")

    diagnosing = Diagnosing(Failing)
    diagnosing.start()
    diagnosing.feed(records(Script()))
    until(lambda: diagnosing.state.phase == "failed" and diagnosing.idle)
    assert diagnosing.state.error == "no weights"
    diagnosing.stop()


def test_a_pause_is_renewed_until_resumed():
    source, replies = FakeSource(), []
    controlling = Controlling(source, replies.append, renew=0.005)
    controlling.start()
    controlling.pause()
    until(lambda: source.sent.count("pause") >= 4)
    assert replies == ["training paused before its next step"], "a renewal says nothing new"
    controlling.resume()
    until(lambda: "resume" in source.sent)
    count = len(source.sent)
    controlling.sample()
    until(lambda: len(source.sent) > count)
    assert source.sent[count:] == ["sample"]
    assert replies[1:] == ["training resumed", "the next step will be measured"]
    controlling.stop()


def test_stopping_lets_the_lease_lapse():
    source = FakeSource()
    controlling = Controlling(source, lambda text: None, renew=0.005)
    controlling.start()
    controlling.pause()
    until(lambda: len(source.sent) >= 2)
    controlling.stop()
    controlling._thread.join(5)
    assert not controlling._thread.is_alive()
    assert set(source.sent) == {"pause"}


def test_a_replay_restarts_its_stream_when_it_goes_back():
    replay = FakeReplay(Script())
    first = replay.read()
    assert isinstance(first.records[0], Header)
    replay.jump(100)
    again = replay.read()
    assert isinstance(again.records[0], Header)
    assert replay.position().step == 100
    replay.step(1)
    more = replay.read()
    assert not any(isinstance(r, Header) for r in more.records)
    assert replay.position().step == 110


def test_threads_end():
    before = threading.active_count()
    reader = Reader(FakeSource(), lambda records: None)
    reader.start()
    reader.stop()
    assert threading.active_count() <= before


def test_leaving_waits_for_the_frame_in_hand_but_not_for_an_engine_that_loads(monkeypatch):
    loading, gate, waited = threading.Event(), threading.Event(), []

    def slow(header):
        loading.set()
        assert gate.wait(30)
        return ScriptedEngine(header)

    def stopped(diagnosing):
        join = diagnosing._thread.join
        monkeypatch.setattr(diagnosing._thread, "join", lambda *_: waited.append(diagnosing))
        diagnosing.stop()
        gate.set()
        join(30)
        assert not diagnosing._thread.is_alive()

    early, later = Diagnosing(slow), Diagnosing(ScriptedEngine)
    early.start()
    early.feed([header()])
    assert loading.wait(30)
    stopped(early)
    later.start()
    later.feed([header()])
    until(lambda: later.state.phase == "ready")
    stopped(later)
    assert waited == [later]
