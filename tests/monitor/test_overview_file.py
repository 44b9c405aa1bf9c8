"""A long trace opens at once the second time; an overview of another file counts for nothing."""

import sys

import numpy as np
import pytest
from long_trace import SCRIPT, counts_as_long, full_model
from screen_driver import app_for, settle
from streams import store

from monitor.model_state import pack, taken, unpack
from monitor.run_model import RunModel
from monitor.sources import overview_file, reading_ahead, replay
from monitor.sources.fake import Script, records
from monitor.sources.replay import ReplaySource
from monitor.sources.source import Batch
from probe.schema import Frame


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    counts_as_long(monkeypatch, tmp_path / "cache", processes=1)
    return tmp_path / "cache" / "defaultpp-monitor" / "overviews"


def same(one, other):
    assert one.groups.keys() == other.groups.keys()
    for key in one.groups:
        for a, b in zip(one.curves(key), other.curves(key), strict=True):
            for name in ("first", "last", "low", "high", "latest", "marks"):
                np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    assert (one.step, one.first_step, one.frames) == (other.step, other.first_step, other.frames)
    assert one.marks() == other.marks()
    assert one.steps_per_second == pytest.approx(other.steps_per_second)
    assert one.clock.milliseconds([77]) == other.clock.milliseconds([77])


def test_a_model_is_packed_and_goes_on_as_the_one_it_was():
    model, again = full_model(), RunModel()
    unpack(again, pack(model))
    same(model, again)
    more = [r for r in records(Script(steps=900, every=5, layers=2)) if isinstance(r, Frame)][125:]
    for one in (model, again):
        one.take(Batch(records=tuple(more), link="replay"))
    same(model, again)
    with pytest.raises(ValueError, match="no header"):
        pack(RunModel())


async def opened(path):
    source = ReplaySource(path, playing=False)
    source.jump(sys.maxsize)
    app = app_for(source)
    async with app.run_test(size=(120, 40)) as pilot:
        await settle(pilot, lambda: source.position().at_end and (app._remembered or source._known))
        await app.workers.wait_for_complete()
        return app, source


async def test_the_second_time_the_overview_is_there_at_once(tmp_path, cache):
    path = store(tmp_path / "t.trace", records(SCRIPT))
    first, _ = await opened(path)
    assert len(list(cache.iterdir())) == 1
    source = ReplaySource(path, playing=False)
    source.jump(sys.maxsize)
    batch = source.read()
    assert batch.overview is not None
    assert batch.records == ()
    assert source.position().at_end
    told = source.read()
    assert told.known
    assert told.records
    source.close()
    second, _ = await opened(path)
    same(first.model, second.model)
    # The diagnosis goes over the frames all the same.
    assert second.diagnosis.diagnosis.verdict == "faulty"
    assert second.diagnosis.diagnosis.frames == second.model.frames
    assert second.known_flag == first.known_flag == 300


async def test_a_trace_that_grew_is_read_on_from_there(tmp_path):
    everything = records(SCRIPT)
    whole = store(tmp_path / "whole.trace", everything).read_bytes()
    path = store(tmp_path / "t.trace", everything[:150])
    await opened(path)
    with path.open("ab") as file:
        file.write(whole[path.stat().st_size :])
    source = ReplaySource(path, playing=False)
    source.jump(sys.maxsize)
    model = RunModel()
    while not source.position().at_end or model.end is None:
        model = taken(model, source.read())
    source.close()
    same(model, full_model())


@pytest.mark.parametrize("change", ["other", "shorter", "damaged", "foreign"])
async def test_what_does_not_fit_is_made_again(tmp_path, cache, change):
    path = store(tmp_path / "t.trace", records(SCRIPT))
    await opened(path)
    (kept,) = cache.iterdir()
    if change == "other":
        path.unlink()
        store(path, records(Script(steps=600, every=5, layers=2, seed=5)))
    elif change == "shorter":
        path.write_bytes(path.read_bytes()[:-2000])
    elif change == "damaged":
        kept.write_bytes(kept.read_bytes()[:-500])
    else:
        kept.write_bytes(b"nothing of the kind")
    assert overview_file.load(path) is None
    source = ReplaySource(path, playing=False)
    source.jump(sys.maxsize)
    assert source.read().overview is None
    source.close()


def gone_through(source, model=None, until=None):
    """The model when the source stands where it was sent, at the end by default, and the steps
    that the diagnosis was told of meanwhile."""
    model, told = model or RunModel(), []
    for _ in range(500):
        batch = source.read(timeout=0.0)
        told += [r.step for r in batch.records if isinstance(r, Frame)]
        assert not (batch.records and batch.overview)
        model = taken(model, batch)
        there = until() if until else source.position().at_end and source._told == source._known
        if there and not batch.size and batch.overview is None:
            break
    return model, told


@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_on_its_way_a_long_trace_is_read_for_the_model_alone(tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(replay, "LOAD_CHUNK", chunk)
    monkeypatch.setattr(replay, "AHEAD_CHUNK", chunk)
    monkeypatch.setattr(replay, "RETOLD_FRAMES", 50)
    source = ReplaySource(store(tmp_path / "t.trace", records(SCRIPT)), playing=False)
    source.jump(sys.maxsize)
    model, told = gone_through(source)
    source.close()
    same(model, full_model())
    assert 25 < len(told) <= 50
    assert told[-1] == 595, "the newest frame is among them"
    assert len(set(np.diff(told))) == 1, "evenly apart"


@pytest.mark.parametrize("chunk", [7, 1000])
def test_the_diagnosis_hears_the_way_before_what_comes_after(tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(replay, "LOAD_CHUNK", chunk)
    monkeypatch.setattr(replay, "AHEAD_CHUNK", chunk)
    monkeypatch.setattr(replay, "RETELL_AFTER", 1e9)
    source = ReplaySource(store(tmp_path / "t.trace", records(SCRIPT)), playing=False)
    source.jump(301)
    model, told = gone_through(source, until=lambda: source.position().step == 305)
    assert model.sampled_steps()[-1] == 305
    assert told == []
    source.step(2)
    model, told = gone_through(source, model, lambda: source.position().step == 315)
    assert told == list(range(0, 320, 5))
    assert model.sampled_steps()[-1] == 315
    source.step(-3)
    model, told = gone_through(source, model, lambda: source.position().step == 300)
    assert told == list(range(0, 305, 5))
    source.close()


def test_pictures_on_the_way_show_what_was_read_and_keep_the_monitors_notes(tmp_path, monkeypatch):
    monkeypatch.setattr(replay, "LOAD_CHUNK", 40)
    monkeypatch.setattr(replay, "AHEAD_CHUNK", 40)
    monkeypatch.setattr(reading_ahead, "SHOWN_EVERY", 0.0)
    source = ReplaySource(store(tmp_path / "t.trace", records(SCRIPT)), playing=False)
    source.jump(sys.maxsize)
    model, frames = RunModel(), []
    while source.position().seeking:
        batch = source.read(timeout=0.0)
        model = taken(model, batch)
        if batch.overview is not None:
            frames.append(model.frames)
        if len(frames) == 2 and all(event.seq >= 0 for event in model.events):
            model.note("a note of the monitor", step=1)
    assert len(frames) > 3 and frames == sorted(set(frames))
    same(model, full_model())
    assert [event.text for event in model.events if event.seq < 0] == ["a note of the monitor"]
    assert [event.step for event in model.events] == sorted(e.step for e in model.events)
    source.close()


def test_a_way_begun_in_the_middle_arrives_with_all_of_it(tmp_path, monkeypatch):
    monkeypatch.setattr(replay, "LOAD_CHUNK", 40)
    monkeypatch.setattr(replay, "AHEAD_CHUNK", 40)
    source = ReplaySource(store(tmp_path / "t.trace", records(SCRIPT)), playing=False)
    source.jump(100)
    model, _ = gone_through(source, until=lambda: source.position().step == 100)
    source.jump(sys.maxsize)
    model, _ = gone_through(source, model)
    same(model, full_model())
    source.close()


def test_another_goal_before_the_way_was_begun_costs_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(replay, "LOAD_CHUNK", 40)
    monkeypatch.setattr(replay, "AHEAD_CHUNK", 40)
    monkeypatch.setattr(reading_ahead, "_AT_ONCE", 5)
    source = ReplaySource(store(tmp_path / "t.trace", records(SCRIPT)), playing=False)
    source.jump(100)
    model, _ = gone_through(source, until=lambda: source.position().step == 100)
    source.jump(sys.maxsize)
    with source._changed:  # a moment for others after every few records
        assert source._read(500, 0.0).records  # what was read already
        assert [source._read(500, 0.0) for _ in range(3)] == [None] * 3
    source.jump(50)
    model, _ = gone_through(source, model, lambda: source.position().step == 50)
    assert model.sampled_steps()[-1] == 50
    source.jump(sys.maxsize)
    model, _ = gone_through(source, model)
    same(model, full_model())
    source.close()


@pytest.mark.parametrize("chunk", [39, 40])  # one of them ends with a frame
@pytest.mark.parametrize("goal", [0, 85, 90, 95, 400])
def test_another_goal_on_the_way_leaves_nothing_out(tmp_path, monkeypatch, goal, chunk):
    monkeypatch.setattr(replay, "LOAD_CHUNK", chunk)
    monkeypatch.setattr(replay, "AHEAD_CHUNK", chunk)
    source = ReplaySource(store(tmp_path / "t.trace", records(SCRIPT)), playing=False)
    source.jump(sys.maxsize)
    source.read(timeout=0.0)  # the header
    with source._changed:
        while len(source._records) <= chunk:  # read ahead, and not shown yet
            assert source._read(500, 0.0) is None
    source.jump(goal)
    model, _ = gone_through(source, until=lambda: source.position().step == goal)
    assert model.sampled_steps()[-1] == goal
    upto = [r for r in records(SCRIPT) if not isinstance(r, Frame) or r.step <= goal]
    wanted = RunModel()
    wanted.take(Batch(records=tuple(upto), link="replay"))
    assert model.sampled_steps().tolist() == wanted.sampled_steps().tolist()
    for _ in range(3):
        source.step(1)
        model, _ = gone_through(source, model)
    source.jump(sys.maxsize)
    model, _ = gone_through(source, model)
    same(model, full_model())
    source.close()


def test_only_so_many_are_kept_and_a_full_disk_is_no_error(tmp_path, cache, monkeypatch):
    monkeypatch.setattr(overview_file, "KEPT", 3)
    for number in range(5):
        path = store(tmp_path / f"{number}.trace", records(SCRIPT))
        overview_file.save(path, path.stat().st_size, pack(full_model()))
    assert len(list(cache.iterdir())) == 3
    blocked = tmp_path / "blocked"
    blocked.write_text("a file where a directory should be")
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    overview_file.save(path, path.stat().st_size, pack(full_model()))
    assert overview_file.load(path) is None
