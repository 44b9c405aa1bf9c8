"""Replay of a trace, with a clock that the test turns."""

import math
import threading

import pytest
from streams import a_run, frame, header, store

from monitor.sources.replay import LONGEST_GAP, ReplaySource
from monitor.sources.source import SourceError
from probe.schema import Control, Frame, Header, encode
from probe.trace import TraceWriter


class Clock:
    now = 50.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def open_(tmp_path, clock):
    sources = []

    def open_source(records=None, **options):
        path = store(tmp_path / f"{len(sources)}.trace", records or a_run())
        sources.append(ReplaySource(path, clock=clock, **options))
        return sources[-1]

    yield open_source
    for source in sources:
        source.close()


def steps(records):
    return [record.step for record in records if isinstance(record, Frame)]


def read_all(source, rounds=20, limit=500):
    return [r for _ in range(rounds) for r in source.read(limit=limit, timeout=0.0).records]


def test_playing_follows_the_recorded_times(open_, clock):
    # One frame a second, as recorded.
    source = open_([header(), *[frame(n + 1, n) for n in range(10)]], speed=1.0)
    assert steps(read_all(source)) == [0]
    clock.now += 2.5
    assert steps(read_all(source)) == [1, 2]
    clock.now += 0.6
    assert steps(read_all(source)) == [3]


def test_speed_divides_the_waiting(open_, clock):
    source = open_([header(), *[frame(n + 1, n) for n in range(10)]], speed=1.0)
    read_all(source)
    source.set_speed(4.0)
    clock.now += 1.0
    assert steps(read_all(source)) == [1, 2, 3, 4]


def test_a_long_gap_of_the_run_is_replayed_as_a_short_one(open_, clock):
    source = open_([header(), frame(1, 0, time=0.0), frame(2, 1, time=86400.0)])
    read_all(source)
    clock.now += LONGEST_GAP + 0.01
    assert steps(read_all(source)) == [1]


def test_pause_holds_and_play_does_not_make_up_for_it(open_, clock):
    source = open_([header(), *[frame(n + 1, n) for n in range(10)]])
    read_all(source)
    source.play(False)
    clock.now += 100
    assert read_all(source) == []
    assert not source.position().playing
    source.play(True)
    clock.now += 1.0
    assert steps(read_all(source)) == [1]


def test_paused_from_the_start_the_header_still_comes(open_):
    source = open_(playing=False)
    assert [type(record) for record in read_all(source)] == [Header]


def test_step_moves_by_frames_both_ways(open_):
    source = open_(playing=False)
    read_all(source)
    source.step(3)
    assert steps(read_all(source)) == [0, 10, 20]
    source.step(1)
    assert steps(read_all(source)) == [30]
    source.step(-2)
    again = read_all(source)
    assert isinstance(again[0], Header)
    assert steps(again) == [0, 10]
    assert source.position().step == 10


def test_stepping_before_the_first_frame_stays_at_it(open_):
    source = open_(playing=False)
    source.step(2)
    read_all(source)
    source.step(-50)
    assert steps(read_all(source)) == [0]


@pytest.mark.parametrize(("to", "reached"), [(35, 40), (40, 40), (0, 0), (10_000, 90), (-5, 0)])
def test_jump_goes_to_the_first_frame_at_or_after_the_step(open_, to, reached):
    source = open_(playing=False)
    source.jump(to)
    records = read_all(source)
    assert steps(records)[-1] == reached
    assert source.position().step == reached


def test_jump_back_restarts_the_stream_with_its_header(open_):
    source = open_(playing=False)
    source.jump(90)
    read_all(source)
    source.jump(20)
    records = read_all(source)
    assert isinstance(records[0], Header)
    assert steps(records) == [0, 10, 20]


def test_a_jump_keeps_to_the_limit_of_a_read(open_):
    source = open_(playing=False)
    source.jump(90)
    assert len(source.read(limit=4, timeout=0.0).records) <= 4
    assert steps(read_all(source, limit=4))[-1] == 90


def test_the_end_is_told_once(open_, clock):
    source = open_(speed=1000.0)
    read_all(source)
    clock.now += 60
    texts = [source.read(timeout=0.0).text for _ in range(6)]
    assert [text for text in texts if text] == ["End of the trace."]
    assert source.read(timeout=0.0).link == "replay"


def test_a_trace_without_an_end_says_why(open_, clock):
    source = open_(a_run(ended=False), speed=1000.0)
    clock.now += 60
    texts = [source.read(timeout=0.0).text for _ in range(6)]
    assert "killed or is still writing" in "".join(texts)


def test_a_growing_trace_is_followed(tmp_path, clock):
    writer = TraceWriter(tmp_path / "growing.trace")
    for record in a_run(frames=2, ended=False):
        writer.append(encode(record))
    source = ReplaySource(tmp_path / "growing.trace", speed=1000.0, clock=clock)
    try:
        clock.now += 10
        assert steps(read_all(source)) == [0, 10]
        writer.append(encode(frame(3, 20)))
        clock.now += 10
        assert steps(read_all(source)) == [20]
    finally:
        source.close()
        writer.close()


def test_position_counts_records_and_steps(open_):
    source = open_(playing=False, speed=3.0)
    source.jump(30)
    read_all(source)
    position = source.position()
    assert (position.record, position.records) == (5, 12)
    assert (position.step, position.last_step, position.speed) == (30, 90, 3.0)


@pytest.mark.parametrize(("asked", "kept"), [(0.0, 0.05), (-1.0, 0.05), (math.inf, 1e6)])
def test_impossible_speeds_are_clamped(open_, asked, kept):
    source = open_()
    source.set_speed(asked)
    assert source.position().speed == kept
    source.set_speed(math.nan)
    assert source.position().speed == kept


def test_nothing_can_be_asked_of_a_saved_training(open_):
    assert "no training here to pause" in open_().send(Control(action="pause"))


def test_jump_from_another_thread_wakes_the_reader(open_):
    source = open_(playing=False)
    read_all(source)
    threading.Timer(0.05, source.jump, [50]).start()
    batch = source.read(timeout=20.0)
    assert steps(batch.records)[-1] == 50


def test_reading_a_closed_replay_is_harmless(open_):
    source = open_()
    source.close()
    source.close()
    assert source.read().records == ()


@pytest.mark.parametrize("content", [b"", b"not a trace at all, but long enough to be looked at"])
def test_what_is_no_trace_is_one_clear_sentence(tmp_path, content):
    path = tmp_path / "foreign"
    path.write_bytes(content)
    with pytest.raises(SourceError) as error:
        ReplaySource(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_trace_is_one_clear_sentence(tmp_path):
    with pytest.raises(SourceError, match="no such file"):
        ReplaySource(tmp_path / "absent.trace")
