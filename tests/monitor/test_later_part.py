"""The later part of a long trace is read by another process; the whole is the same as without."""

import subprocess
import sys
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest
from long_trace import SCRIPT, counts_as_long, full_model
from streams import store

from monitor.envelope import Envelope
from monitor.joining import join
from monitor.model_state import taken
from monitor.run_model import RunModel
from monitor.sources import reading_ahead
from monitor.sources.fake import records
from monitor.sources.later_part import LaterPart
from monitor.sources.replay import ReplaySource
from probe.schema import Frame, Header
from probe.trace import TraceReader


@pytest.fixture(autouse=True)
def long(monkeypatch, tmp_path):
    counts_as_long(monkeypatch, tmp_path / "cache", processes=2)


@pytest.fixture
def begun(monkeypatch):
    """The later parts that were begun, with what came of them."""
    seen = []
    part = LaterPart.part

    def told(self):
        seen.append((self, part(self)))
        return seen[-1][1]

    monkeypatch.setattr(LaterPart, "part", told)
    return seen


@pytest.fixture
def joined(monkeypatch):
    """The later parts that were put behind the first."""
    seen = []

    def told(model, later):
        seen.append(later)
        join(model, later)

    monkeypatch.setattr(reading_ahead, "join", told)
    return seen


def arrived(path, goal=sys.maxsize):
    """Model and source after going to a step."""
    source = ReplaySource(path, playing=False)
    source.jump(goal)
    model = RunModel()
    while source.position().seeking:
        model = taken(model, source.read())
    model = taken(model, source.read(timeout=0.0))
    return model, source


def kept(model):
    """Of every curve what survives however its buckets lie."""
    found = {}
    for key in model.groups:
        for at, curve in enumerate(model.curves(key)):
            low, high = curve.low[np.isfinite(curve.low)], curve.high[np.isfinite(curve.high)]
            found[key, at] = (
                int(curve.first[0]) if len(curve) else None,
                int(curve.last[-1]) if len(curve) else None,
                float(low.min()) if len(low) else None,
                float(high.max()) if len(high) else None,
                repr(float(curve.latest[-1])) if len(curve) else None,
                int(np.bitwise_or.reduce(curve.marks)) if len(curve) else None,
            )
    return found


def same(model, other):
    assert kept(model) == kept(other)
    assert (model.step, model.first_step, model.frames) == (
        other.step,
        other.first_step,
        other.frames,
    )
    assert model.marks() == other.marks()
    assert model.end == other.end
    assert model.clock.milliseconds([77, 444]).tolist() == pytest.approx(
        other.clock.milliseconds([77, 444]).tolist(), abs=5
    )
    for key in model.groups:
        assert model.measured(key) == other.measured(key)


def test_two_processes_give_what_one_gives(tmp_path, begun, joined):
    path = store(tmp_path / "t.trace", records(SCRIPT))
    model, source = arrived(path)
    ((_, part),) = begun
    assert part is not None and part.end == path.stat().st_size
    assert len(joined) == 1
    same(model, full_model())
    assert len(source._records) == len(records(SCRIPT)) and source._records.ended
    # Every record is found where it was said to lie.
    assert list(source._records.between(0, len(source._records))) == list(records(SCRIPT))
    source.close()


def test_a_trace_that_grows_is_followed_beyond_both_parts(tmp_path, begun):
    everything = records(SCRIPT)
    whole = store(tmp_path / "whole.trace", everything).read_bytes()
    path = store(tmp_path / "t.trace", everything[:150])
    model, source = arrived(path)
    assert begun[0][1] is not None
    with path.open("ab") as file:
        file.write(whole[path.stat().st_size :])
    while model.end is None:
        model = taken(model, source.read())
    same(model, full_model())
    source.close()


@pytest.mark.parametrize("goal", [200, 400, 590])
def test_a_goal_before_the_end_shows_nothing_of_what_follows(tmp_path, begun, joined, goal):
    path = store(tmp_path / "t.trace", records(SCRIPT))
    model, source = arrived(path, goal)
    # The first part is not read beyond a goal that lies in it.
    assert bool(begun) == (goal > 300) and joined == []
    assert model.sampled_steps()[-1] == goal
    source.close()


def test_a_later_part_that_fails_is_read_here(tmp_path, begun, monkeypatch):
    monkeypatch.setattr(
        subprocess, "Popen", lambda *a, **k: SimpleNamespace(communicate=lambda: (b"", b""))
    )
    monkeypatch.setattr(LaterPart, "close", lambda self: None)
    model, source = arrived(store(tmp_path / "t.trace", records(SCRIPT)))
    assert [part for _, part in begun] == [None]
    same(model, full_model())
    source.close()


def test_no_process_to_be_had_is_no_error(tmp_path, monkeypatch):
    def refused(*args, **kwargs):
        raise OSError("too many processes")

    monkeypatch.setattr(subprocess, "Popen", refused)
    model, source = arrived(store(tmp_path / "t.trace", records(SCRIPT)))
    same(model, full_model())
    source.close()


def later_header(found, at):
    """The same records; from one of them on, the last column is no longer measured."""
    header = next(r for r in found if isinstance(r, Header))
    other = msgspec.structs.replace(header, revision=1, columns=header.columns[:-1])
    after = [
        msgspec.structs.replace(r, values=r.values[:-4]) if isinstance(r, Frame) else r
        for r in found[at:]
    ]
    return [*found[:at], other, *after]


@pytest.mark.parametrize("share", [0.1, 0.9])
def test_under_another_header_both_parts_are_read_here(tmp_path, begun, share):
    found = list(records(SCRIPT))
    found = later_header(found, int(share * len(found)))
    model, source = arrived(store(tmp_path / "t.trace", found))
    if share > 0.5:
        assert [part for _, part in begun] == [None]
    same(model, full_model(found))
    source.close()


def test_a_header_of_as_many_columns_is_another_one_too(tmp_path, begun, joined):
    found = list(records(SCRIPT))
    header = next(r for r in found if isinstance(r, Header))
    turned = msgspec.structs.replace(header, revision=1, columns=header.columns[::-1])
    found.insert(60, turned)
    model, source = arrived(store(tmp_path / "t.trace", found))
    assert begun[0][1] is not None and joined == []
    same(model, full_model(found))
    source.close()


def test_what_the_later_part_alone_measured_is_measured(tmp_path, joined):
    def unmeasured(frame):
        values = np.frombuffer(frame.values, "<f4").copy()
        values[-1] = np.nan
        return msgspec.structs.replace(frame, values=values.tobytes())

    found = [unmeasured(r) if isinstance(r, Frame) and r.step < 500 else r for r in records(SCRIPT)]
    model, source = arrived(store(tmp_path / "t.trace", found))
    assert len(joined) == 1
    same(model, full_model(found))
    source.close()


def test_damage_in_either_part_is_counted_once(tmp_path, begun):
    path = store(tmp_path / "t.trace", records(SCRIPT))
    data = bytearray(path.read_bytes())
    for share in (0.2, 0.8):
        data[int(share * len(data))] ^= 0xFF
    path.write_bytes(data)
    _, source = arrived(path)
    assert begun[0][1] is not None
    assert source._records.damaged == 2
    alone = TraceReader(path)
    assert len(list(alone)) == len(source._records) and alone.damaged == 2
    alone.close()
    source.close()


def test_a_search_in_the_middle_finds_the_next_whole_record(tmp_path):
    path = store(tmp_path / "t.trace", records(SCRIPT))
    reader = TraceReader(path)
    places = [offset - 12 for offset in reader.placed(10_000).offsets]
    for offset in (places[3], places[3] + 1, places[4] - 1):
        expected = places[3] if offset == places[3] else places[4]
        assert reader.seek(offset) == expected
        assert reader.offset == expected
    assert reader.seek(path.stat().st_size - 3) is None
    reader.close()


def test_a_reader_told_to_stop_stops_there_and_can_go_on(tmp_path):
    path = tmp_path / "t.trace"
    store(path, records(SCRIPT))
    everything = list(TraceReader(path))
    reader = TraceReader(path)
    middle = TraceReader(path).seek(path.stat().st_size // 2)
    reader.until = middle
    first = list(reader)
    assert reader.offset == middle and reader.damaged == 0
    reader.until = None
    assert first + list(reader) == everything
    reader.close()


def samples(count, columns=3, seed=0):
    drawn = np.random.default_rng(seed).normal(size=(count, columns)).astype(np.float32)
    if count:
        drawn[count // 3, 0] = np.nan
        drawn[count // 2, 1] = np.inf
    return np.arange(count, dtype=np.int64) * 5, drawn


@pytest.mark.parametrize("at", [0, 1, 7, 64, 333, 999, 1000])
def test_joined_envelopes_lose_nothing_and_go_on(at):
    steps, values = samples(1000)
    whole, first, later = Envelope(3, 64), Envelope(3, 64), Envelope(3, 64)
    whole.extend(steps, values)
    first.extend(steps[:at], values[:at])
    later.extend(steps[at:], values[at:])
    first.join(later)
    for envelope in (whole, first):
        envelope.extend(steps[-1] + 5 * np.arange(1, 301), np.full((300, 3), 9.0, np.float32))
    for column in range(3):
        found, expected = first.curve(column), whole.curve(column)
        assert len(found) <= 64
        assert found.first[0] == 0 and found.last[-1] == expected.last[-1]
        assert (np.diff(found.first) > 0).all() and (found.first[1:] > found.last[:-1]).all()
        assert np.nanmin(found.low) == np.nanmin(expected.low)
        assert np.nanmax(found.high) == np.nanmax(expected.high)
        assert np.bitwise_or.reduce(found.marks) == np.bitwise_or.reduce(expected.marks)
        # Each bucket's extremes are those of the samples between its steps.
        every = np.concatenate([values[:, column], np.full(300, 9.0, np.float32)])
        times = np.arange(1300) * 5
        for at_bucket in range(len(found)):
            inside = every[(times >= found.first[at_bucket]) & (times <= found.last[at_bucket])]
            inside = inside[np.isfinite(inside)]
            assert found.high[at_bucket] == inside.max() and found.low[at_bucket] == inside.min()


def test_ranks_and_scalars_of_one_part_alone_are_kept():
    found = list(records(SCRIPT))
    frames = [r for r in found if isinstance(r, Frame)]
    second = [msgspec.structs.replace(f, rank=1) for f in frames[60:]]
    one, other = full_model([found[0], *frames[:60]]), full_model([found[0], *second])
    join(one, other)
    assert one.ranks == (0, 1)
    assert one.frames == 60  # those of the rank that is meant where none is named


def test_what_is_no_record_under_a_right_length_is_not_where_a_part_begins(tmp_path):
    path = store(tmp_path / "t.trace", records(SCRIPT))
    reader = TraceReader(path)
    places = [offset - 12 for offset in reader.placed(10_000).offsets]
    data = bytearray(path.read_bytes())
    data[places[5] + 14] ^= 0xFF  # in its payload
    path.write_bytes(data)
    assert reader.seek(places[5]) == places[6]
    reader.close()
