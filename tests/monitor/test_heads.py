"""Heads in the monitor: beside the layers they belong to, out of the way elsewhere."""

import msgspec
import numpy as np
import pytest
from screen_driver import FakeSource, Script, running, settle, show

from monitor.charts.heatmap import EMPTY, NOT_A_NUMBER, PLUS, heat
from monitor.envelope import Envelope
from monitor.metric_groups import heads_key, whole_key
from monitor.run_model import RunModel
from monitor.sources.fake import header
from monitor.sources.source import Batch
from monitor.viewing import Viewing
from monitor.widgets.head_map import HeadMap, axis, head_heat
from monitor.widgets.metric_picker import MetricPicker

HEADS = Script(steps=100, heads=3)


def model_of(script):
    model = RunModel()
    model.take(Batch((header(script),), "live"))
    return model


def layers_heat(*values):
    history = Envelope(len(values), 4)
    history.extend(np.array([0]), np.array([values], np.float32))
    curves = [history.curve(at, str(at), None) for at in range(len(values))]
    return heat(curves, "share", 20)


def test_lists_hold_heads_only_where_they_are_asked_for():
    model, viewing = model_of(HEADS), Viewing()
    plain = viewing.keys(model_of(Script(steps=100)))
    assert viewing.keys(model) == plain
    viewing.pattern = "entropy"
    assert "attention@1/entropy" not in viewing.keys(model)
    viewing.pattern = "@1/entropy"
    assert viewing.keys(model) == ("attention@1/entropy",)
    viewing.pattern, viewing.selected = "", "attention@2/max_weight"
    assert [key for key in viewing.keys(model) if "@" in key] == ["attention@2/max_weight"]


def test_the_heatmap_goes_through_layers_or_through_one_layers_heads():
    model, viewing = model_of(HEADS), Viewing()
    assert not [key for key in viewing.layered_keys(model) if "@" in key]
    assert "attention@3/entropy" in viewing.heat_keys(model)
    viewing.heatmap = "attention@3/entropy"
    keys = viewing.layered_keys(model)
    assert "attention@3/max_weight" in keys
    assert all("@3/" in key for key in keys)


def test_what_a_layer_lacks_its_heads_lack():
    model = model_of(HEADS)
    told = {"attention/entropy": "one", "score@1/std": "two"}
    model.take(Batch((msgspec.structs.replace(header(HEADS), absent=told, revision=1),), "live"))
    assert model.absence("attention@2/entropy") == "one"
    assert (model.absence("score@1/std"), model.absence("score@2/std")) == ("two", "")
    assert whole_key(heads_key("decoder.score/std", "1")) == "decoder.score/std"


def test_heads_are_drawn_on_the_scale_of_the_layers():
    layers = layers_heat(0.0, 1.0)
    found = head_heat([[0.0, 1.0, np.nan], [np.inf, 0.5]], layers)
    levels = found.levels[:, ::3]
    assert levels.tolist() == [[0, 11, NOT_A_NUMBER], [PLUS, 6, EMPTY]]
    assert found.scale is layers.scale
    # Two heads share a column: the larger is seen.
    many = head_heat([[0.0, 1.0] * 48] * 2, layers)
    assert many.levels.tolist() == [[11] * 48] * 2


@pytest.mark.parametrize(
    ("heads", "text"), [(4, "0  1  2  3"), (12, "0  1  2  3  4  5  6  7  8  9  10 11")]
)
def test_heads_are_numbered_where_there_is_room(heads, text):
    assert axis(heads) == text
    assert len(axis(64)) <= 48


async def test_layers_show_the_heads_of_a_metric_that_has_them():
    async with running(FakeSource(HEADS), size=(120, 40)) as (app, pilot):
        await show(pilot, "layers")
        pane = app.view.query_one(HeadMap)
        app.viewing.heatmap = "attention/entropy"
        app.acted()
        await settle(pilot)
        assert pane.display
        assert "0  1  2" in pane.text
        app.viewing.heatmap = "residual_ffn/branch_ratio"
        app.acted()
        await settle(pilot)
        assert not pane.display


async def test_the_heads_of_one_layer_are_chosen_by_typing_and_left_by_escape():
    async with running(FakeSource(HEADS), size=(120, 40)) as (app, pilot):
        await show(pilot, "layers")
        await pilot.press("m")
        await settle(pilot)
        picker = app.screen
        assert isinstance(picker, MetricPicker)
        assert not [key for key in picker._shown("entropy") if "@" in key]
        await pilot.press(*"@2 entr", "enter")
        await settle(pilot)
        title = app.view.query_one("#layers-heat").border_title
        assert title.startswith("attention@2/entropy · head × step · ")
        assert not app.view.query_one(HeadMap).display
        await pilot.press("right_square_bracket")
        assert app.viewing.heatmap.startswith("attention@2/")
        await pilot.press("escape")
        await settle(pilot)
        assert "layer × step" in app.view.query_one("#layers-heat").border_title
