"""Runs and ranks looked at together: the arithmetic, and the keys."""

from contextlib import asynccontextmanager

import msgspec
import numpy as np
import pytest
from screen_driver import FakeSource, Script, laid_out, running, settle, show
from streams import COLUMNS, a_run, frame, header, scalars, store

from monitor.charts.chart_pane import ChartPane
from monitor.charts.heatmap import LEVELS
from monitor.charts.heatmap_pane import HeatmapPane
from monitor.charts.raster import value_at
from monitor.comparison import LETTERS, Comparison, differences, overlaid
from monitor.envelope import NAN, Envelope
from monitor.formatting import number
from monitor.merging import difference, together
from monitor.run_catalogue import ListedRun, open_named
from monitor.run_model import MAX_RANKS, RunModel
from monitor.sources.fake import records
from monitor.sources.source import Batch, SourceError
from monitor.sources.ssh import command, parse_target
from monitor.widgets.chart_grid import ChartGrid
from monitor.widgets.comparison_pane import ComparisonPane
from monitor.widgets.key_footer import KeyFooter
from monitor.widgets.layer_profile import LayerProfile
from monitor.widgets.runs_pane import RunsPane
from monitor.widgets.status_line import StatusLine


def curve(steps, values, label=""):
    envelope = Envelope(1, 64)
    envelope.extend(np.array(steps), np.array(values, np.float32)[:, None])
    return envelope.curve(0, label)


def test_curves_together_span_from_lowest_to_highest():
    found = together([curve([0, 10], [1, 2]), curve([5, 10], [3, np.nan])], "x")
    assert found.label == "x"
    assert found.high.tolist() == [3, 2]
    assert found.low.tolist() == [1, 2]
    assert found.latest.tolist() == [2, 2]  # the median of what is known
    assert found.marks[1] & NAN
    with pytest.raises(ValueError, match="no curves"):
        together([], "x")


def test_a_difference_is_taken_at_the_same_step_and_nowhere_else():
    own = curve([0, 10, 20, 30], [5, 6, 7, 8])
    found = difference(own, curve([10, 20], [1, 2]))
    assert np.isnan(found.low[0])  # the baseline had not begun
    assert found.low[1:3].tolist() == [5, 5]
    assert np.isnan(found.low[3])  # and had ended
    assert not found.marks.any()
    infinite = difference(curve([0], [np.inf]), curve([0], [np.inf]))
    assert np.isnan(infinite.low[0])


def test_layers_are_paired_by_name():
    own = [curve([0], [3], "0"), curve([0], [5], "1")]
    (found,) = differences(own, [curve([0], [1], "1")])
    assert (found.label, found.low.tolist()) == ("1", [4])
    (found,) = differences([curve([0], [3], "")], [curve([0], [1], "r0")])
    assert found.low.tolist() == [2]


def test_a_difference_ends_with_the_shorter_run():
    (found,) = differences([curve([0, 10, 20], [3, 4, 5])], [curve([10], [1])])
    assert (found.last.tolist(), found.latest.tolist()) == ([10], [3])
    (nothing,) = differences([curve([0], [3])], [curve([], [])])
    assert np.isnan(nothing.latest).all()


def test_an_overlay_has_a_line_for_each_run_and_no_spike_is_lost():
    own = [curve([0, 10], [1, 9], "0"), curve([0, 10], [1, 1], "1"), curve([0, 10], [1, 1], "2")]
    curves, raw = overlaid(own, [("B", [curve([0, 10], [4, 4])]), ("C", [])], 0.0)
    assert [c.label for c in curves] == ["A", "B"]
    assert curves[0].latest.tolist() == [1, 1]
    assert raw[0].high.tolist() == [1, 9]


def ranked(steps=(0, 10)):
    """Two ranks of one run: the second one's values are ten times as large."""
    model = RunModel()
    found = [msgspec.structs.replace(header(), world_size=2)]
    for step in steps:
        for rank, times in ((0, 1), (1, 10)):
            found.append(
                msgspec.structs.replace(
                    frame(1, step, values=(0.5 * times, 1.0 * times, 2.0 * times)), rank=rank
                )
            )
            found.append(msgspec.structs.replace(scalars(2, [step], [3.0 * times]), rank=rank))
    model.take(Batch(records=tuple(found), link="live"))
    return model


def test_ranks_are_kept_apart_and_shown_together():
    model = ranked()
    assert model.ranks == (0, 1)
    assert model.frames == 2
    loss = model.curves("log/loss")
    assert [(c.label, float(c.latest[-1])) for c in loss] == [("r0", 3.0), ("r1", 30.0)]
    (alone,) = model.curves("log/loss", rank=1)
    assert alone.latest.tolist() == [30.0, 30.0]
    assert model.latest_values("output/rms") == (2.0,)
    (entropy, *_) = model.curves("attention/entropy", rank=1)
    assert entropy.low.tolist() == [5.0, 5.0]
    assert model.column_value(0, rank=1) == 5.0
    assert model.curves("attention/entropy", rank=7)[0].low.tolist() == []


def test_the_header_of_another_rank_takes_nothing_away():
    model = ranked()
    other = msgspec.structs.replace(header(), rank=1, world_size=2)
    model.take(Batch(records=(other,), link="live"))
    assert model.ranks == (0, 1)
    assert model.header.rank == 0


def test_ranks_beyond_the_limit_take_no_memory():
    model = ranked()
    for rank in range(2, 40):
        found = msgspec.structs.replace(frame(1, 20), rank=rank)
        model.take(Batch(records=(found,), link="live"))
    assert len(model.ranks) == MAX_RANKS
    assert model.header.columns == COLUMNS


def test_letters_are_given_back_and_the_baseline_follows():
    comparison = Comparison()
    sources = [FakeSource(Script(steps=20)) for _ in range(3)]
    try:
        assert not comparison
        first = comparison.add("r1", "one", sources[0])
        second = comparison.add("r2", "two", sources[1])
        assert (first.letter, second.letter, comparison.base) == ("B", "C", first)
        comparison.baseline = "r2"
        assert comparison.base is second
        for reader in comparison.remove("r2"):
            reader.stop()
        assert comparison.base is first
        assert comparison.add("r3", "three", sources[2]).letter == "C"
        assert len(LETTERS) == 7
    finally:
        for reader in comparison.clear():
            reader.stop()
    assert all(source.closed.is_set() for source in sources)


def two_runs(tmp_path):
    other = list(records(Script(steps=300, seed=7)))
    other[0] = msgspec.structs.replace(other[0], run="other", name="other-bert")
    path = store(tmp_path / "other.trace", other)
    broken = tmp_path / "broken.trace"
    broken.write_bytes(b"nothing of the kind")
    return lambda: (
        ListedRun("live", "bert-wikitext", "20260101-000000-bert", "pid 1", 1.0),
        ListedRun("trace", "other-bert", "other", "BertForMaskedLM", 2.0, path=path),
        ListedRun("trace", "broken", "broken", "unreadable", 3.0, path=broken),
    )


async def test_two_runs_are_laid_over_each_other_and_subtracted(tmp_path):
    async with running(FakeSource(Script()), find_runs=two_runs(tmp_path)) as (app, pilot):
        await show(pilot, "runs")
        await app.workers.wait_for_complete()
        await pilot.press("c")
        assert "this run is watched" in app.query_one(StatusLine).text
        await pilot.press("d")
        assert "no run is compared" in app.query_one(StatusLine).text
        await pilot.press("down", "c")
        await settle(pilot, lambda: bool(app.comparison) and app.comparison.runs[0].model.frames)
        await settle(pilot, lambda: app.comparison.runs[0].model.step == 299)
        assert "B ■ recorded" in app.query_one(RunsPane).text
        pane = app.query_one(ComparisonPane)
        assert "A  bert-wikitext" in pane.text
        assert "B  other-bert" in pane.text
        assert "baseline" in pane.text
        await show(pilot, "metrics")
        loss = app.view.query_one(ChartGrid).panes[0]
        assert [c.label for c in loss.data.curves] == ["A", "B"]
        assert "A bert-wikitext · B other-bert" in app.view.query_one(ChartGrid).border_title
        await pilot.press("d")
        assert loss.data.note == "A − B"
        (found,) = loss.data.curves
        own, base = (
            m.curves("training/loss")[0].latest for m in (app.model, app.comparison.base.model)
        )
        assert found.latest[100] == pytest.approx(own[100] - base[100])
        await show(pilot, "runs")
        await pilot.press("c")
        assert not app.comparison
        await pilot.press("down", "c")
        await app.workers.wait_for_complete()
        await pilot.pause()
        assert "broken" in app.query_one(StatusLine).text
        assert not app.comparison
        await pilot.press("up", "b")
        await settle(pilot, lambda: bool(app.comparison))
        assert app.comparison.baseline == "other"


def three_runs(tmp_path):
    """One that trained as long as the run watched, one longer, one of another model."""
    found = []
    for run, script in (
        ("short", Script(steps=200, seed=7)),
        ("long", Script(steps=600, seed=9)),
        ("deeper", Script(steps=200, layers=6, seed=8)),
    ):
        stream = list(records(script))
        stream[0] = msgspec.structs.replace(stream[0], run=run, name=run)
        path = store(tmp_path / f"{run}.trace", stream)
        found.append(ListedRun("trace", run, run, "Bert", 1.0, path=path))
    return lambda: tuple(found)


@asynccontextmanager
async def compared(tmp_path, *wanted, size=(120, 40)):
    """The app with runs compared, each read to its end."""
    find = three_runs(tmp_path)
    async with running(FakeSource(Script(steps=200)), find_runs=find, size=size) as (app, pilot):
        await show(pilot, "runs")
        await app.workers.wait_for_complete()
        for listed in find():
            if listed.run in wanted:
                await pilot.press("c")
                last = {"long": 590}.get(listed.run, 190)
                await settle(
                    pilot,
                    lambda last=last: (
                        app.comparison
                        and list(app.comparison.runs[-1].model.sampled_steps()[-1:]) == [last]
                    ),
                )
            await pilot.press("down")
        yield app, pilot


async def test_a_heatmap_shows_one_run_less_the_baseline(tmp_path):
    async with compared(tmp_path, "short", "deeper") as (app, pilot):
        await show(pilot, "layers")
        pane = app.view.query_one(HeatmapPane)
        assert "d Difference" in app.query_one(KeyFooter).text
        await pilot.press("d")
        await laid_out(pilot)
        key = app.viewing.heatmap_key(app.model)
        assert "A − B" in str(pane.border_title)
        heat = app.view._heat
        assert heat.two_sided
        own, base = (m.curves(key) for m in (app.model, app.comparison.base.model))
        values = [float(a.latest[-1] - b.latest[-1]) for a, b in zip(own, base, strict=True)]
        shown = app.view.query_one(LayerProfile)._values
        assert shown == pytest.approx(values)
        middle = LEVELS / 2
        for row, value in enumerate(values):
            level = heat.levels[row, len(heat.steps) - 1]
            assert (level >= middle) == (value > 0), (level, value)
        # The other run compared, of whose six layers the baseline has four.
        await pilot.press("d")
        await laid_out(pilot)
        assert "C − B" in str(pane.border_title)
        assert app.view._heat.labels == ("0", "1", "2", "3")
        await show(pilot, "overview")
        assert "C − B" in str(app.view.query_one(HeatmapPane).border_title)
        assert app.view.query_one(ChartGrid).panes[0].data.note == "C − B"
        await pilot.press("d")
        assert app.viewing.difference == ""
        assert "−" not in str(app.view.query_one(HeatmapPane).border_title)


async def test_a_heatmap_of_runs_with_nothing_in_common_says_so(tmp_path):
    async with compared(tmp_path, "short") as (app, pilot):
        other = app.comparison.runs[0].model
        header = other.header
        columns = tuple(
            msgspec.structs.replace(c, site=c.site.replace("@", "@9")) for c in header.columns
        )
        other.header = msgspec.structs.replace(header, columns=columns)
        other._groups = None
        await show(pilot, "layers")
        await pilot.press("d")
        await laid_out(pilot)
        assert (
            "A − B: they have no layers of this metric in common"
            in app.view.query_one(HeatmapPane).text
        )
        await pilot.press("down", "d")
        assert app.view._heat is not None


async def test_steps_beyond_the_end_of_the_run_watched_are_reached(tmp_path):
    async with compared(tmp_path, "long") as (app, pilot):
        chart = app.view.query_one(ChartPane)
        assert chart.data.span[1] == 599
        await pilot.press("left")
        assert app.viewing.steps.cursor == 590
        await pilot.press("]")
        assert chart.data.title != "training/loss"
        await pilot.press("[")
        far = next(x for x in range(chart.content_size.width) if (chart.step_of(x) or 0) >= 400)
        await pilot.click(chart, offset=(far, 4))
        assert abs(app.viewing.steps.cursor - 400) <= 10
        own, other = chart.data.curves
        assert own.last[-1] == 199
        assert number(value_at(other, app.viewing.steps.cursor)) in chart.text
        await pilot.press("plus")
        first, last = app.viewing.steps.zoomed
        assert first < app.viewing.steps.cursor < last
        assert last > 400


async def test_ranks_are_gone_through_with_a_key(tmp_path):
    found = [msgspec.structs.replace(header(), world_size=2)]
    for record in a_run()[1:-1]:
        found += [record, msgspec.structs.replace(record, rank=1)]
    source = FakeSource(Script(steps=10))
    source.records = tuple(found)
    source._per_read = len(found)
    async with running(source) as (app, pilot):
        await pilot.press("k")
        assert app.viewing.rank == 0
        await pilot.press("k")
        assert app.viewing.rank == 1
        assert "rank 1" in app.query_one(StatusLine).text
        await pilot.press("k")
        assert app.viewing.rank is None
        await show(pilot, "runs")
        assert "rank 1" in app.query_one(ComparisonPane).text


async def test_a_trace_is_opened_by_its_path_and_an_address_that_fails_is_a_line(tmp_path):
    find = two_runs(tmp_path)
    async with running(FakeSource(Script()), find_runs=find) as (app, pilot):
        await show(pilot, "runs")
        await pilot.press("a", *"nothing", "enter")
        await app.workers.wait_for_complete()
        await pilot.pause()
        assert "nothing" in app.query_one(StatusLine).text
        await pilot.press("a")
        app.query_one("#prompt-input").value = str(tmp_path / "other.trace")
        await pilot.press("enter")
        await settle(pilot, lambda: app.model.header.run == "other" and app.model.step == 299)
        assert app.viewing.view == "overview"
        assert app.is_replay


def test_over_the_screen_ssh_asks_for_nothing(monkeypatch):
    monkeypatch.setenv("DEFAULTPP_SSH", "sh -c 'echo Permission denied >&2; exit 255' sh")
    with pytest.raises(SourceError, match=r"denied; if it wants a password: .*attach ssh://me@gpu"):
        open_named("ssh://me@gpu")
    assert "BatchMode=yes" in command(parse_target("ssh://gpu"), batch=True)
    assert "BatchMode=yes" not in command(parse_target("ssh://gpu"))
