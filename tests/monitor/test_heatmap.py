"""Layers over steps as half blocks, in tiles."""

from itertools import pairwise

import numpy as np
import pytest
from curves import curve

from monitor.charts.heatmap import (
    EMPTY,
    LEVELS,
    MINUS,
    NOT_A_NUMBER,
    PLUS,
    _centres,
    draw_tile,
    heat,
    legend,
    rows_for,
)
from monitor.charts.line import text_of
from monitor.charts.scale import Scale
from monitor.envelope import Envelope
from monitor.run_model import StepMark


def test_heat_shows_the_worst_of_a_column():
    values = np.zeros((2, 100))
    values[1, 42] = 1.0
    found = heat([curve(v, str(i)) for i, v in enumerate(values)], "share", 50)
    assert found.levels.shape == (2, 50)
    assert found.levels[1, 21] == LEVELS - 1
    assert found.levels[0].max() == 0


def test_heat_of_signed_metrics_keeps_the_sign():
    found = heat([curve([-2.0, 0.0, 1.0])], "signed", 5)
    assert found.levels[0, 0] == 0
    assert found.levels[0, 1] == LEVELS // 2
    assert found.levels[0, 2] > LEVELS // 2
    assert found.two_sided


def test_heat_keeps_nan_and_infinity_apart():
    found = heat([curve([1.0, np.nan, np.inf, -np.inf])], "statistic", 7)
    assert list(found.levels[0, 1:5]) == [NOT_A_NUMBER, PLUS, MINUS, EMPTY]
    text = text_of(draw_tile(found, 0, 6, 4, False)[0])
    assert (text[1], text[2], text[3]) == ("·", "↑", "↓")
    assert "infinite" in text_of(legend(found, "", False))


def test_a_heat_column_once_drawn_stays_when_more_steps_come():
    values = np.linspace(0, 1, 90)
    early = heat([curve(values[:70])], "share", 100)
    late = heat([curve(values)], "share", 100)
    assert early.scale.high == late.scale.high
    np.testing.assert_array_equal(early.levels[:, :70], late.levels[:, :70])


@pytest.mark.parametrize("buckets", [1, 7, 50, 99, 160])
def test_a_heat_that_is_complete_fills_the_width(buckets):
    values = np.zeros(buckets)
    values[-1] = 1.0
    mark, scale = StepMark(buckets - 1, "fault"), Scale(0.0, 1.0, False, ())
    found = heat([curve(values)], "share", 50, [mark], scale=scale, whole=True)
    assert len(found.steps) == 50
    assert (found.levels >= 0).all()
    assert found.levels[0, -1] == LEVELS - 1, "no bucket is left out"
    assert found.steps[0][0] == 0
    assert found.steps[-1][1] == buckets - 1
    assert all(one[1] + 1 >= other[0] for one, other in pairwise(found.steps))
    at = found.marks[0][0]
    assert found.steps[at][0] <= buckets - 1 <= found.steps[at][1]


@pytest.mark.parametrize("layers", [1, 4, 12, 30])
@pytest.mark.parametrize("ascii_only", [False, True])
def test_tiles_join_without_a_seam(layers, ascii_only):
    curves = [curve(np.random.default_rng(i).random(60), str(i)) for i in range(layers)]
    found = heat(curves, "share", 40, [StepMark(20, "fault")])
    height = 8
    whole = [text_of(line) for line in draw_tile(found, 0, 40, height, ascii_only)]
    left = [text_of(line) for line in draw_tile(found, 0, 16, height, ascii_only)]
    right = [text_of(line) for line in draw_tile(found, 16, 40, height, ascii_only)]
    assert whole == [a + b for a, b in zip(left, right, strict=True)]
    assert len(whole) == rows_for(layers, height - 1) + 1 <= height
    assert "▲" in whole[-1]


def test_half_blocks_show_two_layers_in_a_line():
    values = np.zeros((8, 4))
    values[5] = 1.0
    found = heat([curve(v, str(i)) for i, v in enumerate(values)], "share", 4)
    lines = draw_tile(found, 0, 4, 5, False)
    assert text_of(lines[2]) == "▀▀▀▀"
    assert lines[2][0][1] == f"h0 on h{LEVELS - 1}"


def test_heat_measures_what_is_furthest_from_the_median():
    values = np.random.default_rng(0).normal(size=(3, 7)).astype(np.float32)
    values[0, 2:] = np.nan
    values[1] = np.nan
    known = np.array([np.median(values[0, :2]), 0.0, np.median(values[2])])
    np.testing.assert_allclose(_centres(values)[:, 0], known, rtol=1e-6)
    envelope = Envelope(1, 4)
    envelope.extend(np.arange(8), np.float32([5, 5, 5, 0, 5, 5, 5, 6])[:, None])
    found = heat([envelope.curve(0)], "statistic", 4)
    assert found.levels[0].tolist()[1] == 0, "the low one is further than the high one"
    assert found.levels[0, 3] > found.levels[0, 0]
