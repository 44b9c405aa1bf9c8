from itertools import pairwise

import numpy as np
import pytest
from msgspec.structs import replace

from diagnoser.phrases import layer_list
from monitor import glyphs
from monitor.charts import raster
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
from monitor.charts.line import fitted, spread, text_of, width_of
from monitor.charts.line_chart import ChartData, draw
from monitor.charts.scale import Scale, round_steps, scale_for
from monitor.charts.step_axis import dot_columns
from monitor.envelope import Envelope
from monitor.formatting import clipped, number, percent
from monitor.glyphs import to_ascii
from monitor.run_model import StepMark


def curve(values, label="", first=0):
    envelope = Envelope(1, 512)
    values = np.asarray(values, np.float32).reshape(-1, 1)
    envelope.extend(np.arange(first, first + len(values)), values)
    return envelope.curve(0, label)


def dots_of(curves, span, scale, width, height):
    """Dots of several curves, shape (curves, height, width)."""
    top, bottom = raster.strokes(curves, span, scale, width, height)
    rows = np.arange(height)[:, None]
    return (rows >= top[:, None]) & (rows <= bottom[:, None])


def dots(values, width=40, height=16, log=False):
    found = curve(values)
    scale = scale_for([found], log)
    return dots_of([found], (0, len(values) - 1), scale, width, height)[0]


def test_a_straight_line_runs_from_corner_to_corner():
    drawn = dots(np.linspace(0, 3, 40), height=16)
    assert drawn[15, 0]
    assert drawn[0, 39]
    assert drawn.any(axis=0).all()
    tops = drawn.argmax(axis=0)
    assert (np.diff(tops) <= 0).all()


def test_a_gap_is_never_bridged():
    values = np.ones(40)
    values[15:25] = np.nan
    drawn = dots(values).any(axis=0)
    assert drawn[:15].all()
    assert not drawn[15:25].any()
    assert drawn[25:].all()


def test_infinity_breaks_the_curve_too():
    values = np.ones(40)
    values[20] = np.inf
    assert not dots(values)[:, 20].any()


def test_a_spike_is_drawn_to_its_height_and_joined():
    values = np.zeros(400)
    values[200] = 1.0
    drawn = dots(values, width=40, height=16)
    column = dot_columns([200], (0, 399), 40)[0]
    assert drawn[0, column]
    assert drawn[:, column].sum() == 16, "the spike stands on the line"


def test_sparse_points_are_joined_across_empty_columns_but_not_across_nan():
    drawn = dots([0.0, 1.0], width=20).any(axis=0)
    assert drawn.all()
    drawn = dots([0.0, np.nan, 1.0], width=21).any(axis=0)
    assert list(np.flatnonzero(drawn)) == [0, 20]


def strokes(*curves):
    """Of each column of each curve the highest and the lowest dot."""
    found = np.array(curves, np.int16)
    return found[:, :, 0], found[:, :, 1]


NONE = (9, -1)


def test_braille_cells():
    characters, owner = raster.cells(*strokes([(0, 0), (3, 3)]), 1, raster.BRAILLE)
    assert characters[0, 0] == chr(0x2800 + 0x01 + 0x80)
    assert owner[0, 0] == 0
    characters, owner = raster.cells(*strokes([NONE, NONE]), 1, raster.BRAILLE)
    assert (characters[0, 0], owner[0, 0]) == (" ", -1)
    characters, _ = raster.cells(*strokes([(2, 9), NONE]), 4, raster.BRAILLE)
    assert "".join(characters[:, 0]) == "⡄⡇⠃ "


def test_the_last_curve_owns_a_shared_cell():
    full = [(0, 3), (0, 3)]
    _, owner = raster.cells(*strokes(full, full, [NONE, NONE]), 1, raster.BRAILLE)
    assert owner[0, 0] == 1


def test_curves_in_a_cell_add_their_dots():
    characters, _ = raster.cells(*strokes([(0, 0), NONE], [NONE, (1, 2)]), 1, raster.BRAILLE)
    assert characters[0, 0] == chr(0x2800 + 0x01 + 0x10 + 0x20)


def test_ascii_cells_use_ascii_only():
    characters, _ = raster.cells(*strokes([(0, 0), (1, 1), (0, 1)]), 1, raster.ASCII)
    assert "".join(characters[0]) == "'.:"


def test_scale_holds_all_values_and_has_round_ticks():
    scale = scale_for([curve([0.13, 0.87])], log=False)
    assert scale.low <= 0.13 <= 0.87 <= scale.high
    assert scale.ticks == (0.0, 0.2, 0.4, 0.6, 0.8, 1.0) or len(scale.ticks) <= 6
    assert scale_for([curve([np.nan])], log=False) is None
    constant = scale_for([curve([3.0, 3.0])], log=False)
    assert constant.low < 3.0 < constant.high


def test_log_scale_puts_zero_at_the_floor():
    scale = scale_for([curve([0.0, 1e-7, 1.0])], log=True)
    assert scale.log
    assert float(scale.position(0.0)) == 0.0
    assert float(scale.position(1.0)) == 1.0
    assert 0 <= float(scale.position(1e-7)) < 0.2


@pytest.mark.parametrize("size", [(80, 12), (37, 8), (36, 5), (20, 3)])
@pytest.mark.parametrize("ascii_only", [False, True])
def test_a_chart_fills_its_place_exactly(size, ascii_only):
    width, height = size
    marks = (StepMark(10, "fault"), StepMark(20, "flagged"))
    curves = tuple(curve(np.sin(np.arange(50) / 9 + i), str(i)) for i in range(4))
    data = ChartData("attention/entropy", curves, (0, 49), "of log n", marks=marks)
    lines = draw(data, width, height, ascii_only)
    assert len(lines) == height
    assert {width_of(line) for line in lines} == {width}


def test_marks_and_not_finite_values_stand_on_the_axis():
    values = np.ones(60)
    values[30], values[40], values[50] = np.nan, np.inf, -np.inf
    data = ChartData("training/loss", (curve(values),), (0, 59), marks=(StepMark(10, "fault"),))
    axis = text_of(draw(data, 70, 10)[-2])
    for sign in "▲×↑↓":
        assert axis.count(sign) == 1
    assert axis.index("▲") < axis.index("×") < axis.index("↑") < axis.index("↓")


def test_rare_metrics_do_not_cry_nan():
    values = np.full(60, np.nan)
    values[::10] = 1.0
    data = ChartData("validation/accuracy", (curve(values),), (0, 59))
    assert "×" not in text_of(draw(data, 70, 10)[-2])


def test_a_chart_without_values_says_why():
    data = ChartData("mask/cross_mass", (), (0, 9), absent="the batch is not packed")
    assert any("the batch is not packed" in text_of(line) for line in draw(data, 60, 8))
    data = ChartData("training/loss", (curve([np.inf, np.inf]),), (0, 9))
    assert any("no finite value" in text_of(line) for line in draw(data, 60, 8))


def test_layers_are_named_where_their_curves_end():
    curves = (curve(np.zeros(9), "0"), curve(np.ones(9), "1"), curve(np.ones(9), "2"))
    lines = [text_of(line).rstrip() for line in draw(ChartData("x/y", curves, (0, 8)), 50, 10)]
    assert lines[1].endswith("1–2")
    assert any(line.endswith(" 0") for line in lines[2:8])


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


@pytest.mark.parametrize(
    ("values", "ticks"),
    [((3.0, 4.5), (2, 5)), ((7.0, 69.0), (5, 10, 20, 50, 100)), ((1.0, 9.0), (1, 2, 5, 10)),
     ((2.0, 2.0), (2, 5)), ((9.99, 10.01), (5, 10, 20)), ((1e-9, 5e-9), (1e-9, 1e-8))],
)  # fmt: skip
def test_a_logarithmic_axis_fits_what_spans_less_than_a_decade(values, ticks):
    scale = scale_for([curve(values)], log=True)
    assert scale.ticks == pytest.approx(ticks)
    assert (scale.low, scale.high) == (scale.ticks[0], scale.ticks[-1])


def test_round_steps_stand_between_the_first_and_the_last():
    assert round_steps((0, 179), 4) == (50, 100, 150)
    assert round_steps((130, 160), 2) == (140, 150)
    assert round_steps((0, 1), 5) == ()
    assert round_steps((0, 100), 0) == ()
    data = ChartData("x/y", (curve(np.arange(180.0)),), (0, 179))
    assert text_of(draw(data, 80, 10)[-1]).split() == ["0", "50", "100", "150", "179"]
    assert text_of(draw(data, 20, 10)[-1]).split() == ["0", "179"]
    for cursor, told in (
        (146, ["0", "50", "100", "146", "179"]),  # no remnant of 150
        (1, ["1", "50", "100", "150", "179"]),
        (178, ["0", "50", "100", "150", "178"]),
    ):
        at = replace(data, cursor=cursor)
        assert text_of(draw(at, 80, 10)[-1]).split() == told


def test_of_a_metric_measured_rarely_the_newest_value_is_told():
    values = np.full(40, np.nan)
    values[[0, 20]] = 0.5, 0.25
    data = ChartData("x/y", (curve(values),), (0, 39))
    assert text_of(draw(data, 50, 10)[0]).rstrip().endswith("0.250")
    often = np.ones(40)
    often[-1] = np.nan
    data = ChartData("x/y", (curve(often),), (0, 39))
    assert text_of(draw(data, 50, 10)[0]).rstrip().endswith("nan")


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


def test_lines_fit():
    assert text_of(fitted([("abc", "fg")], 5)) == "abc  "
    assert text_of(fitted([("abcdef", "fg")], 4)) == "abcd"
    assert text_of(spread([("left", "fg")], [("right", "fg")], 12)) == "left   right"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (2.3456, "2.35"),
        (0.01234, "0.0123"),
        (1.2e-7, "1.2e-7"),
        (34567, "34.6k"),
        (1905664, "1.91M"),
        (float("nan"), "nan"),
        (float("-inf"), "-inf"),
    ],
)
def test_numbers(value, text):
    assert number(value) == text


def test_words():
    assert layer_list((2, 3, 4, 7)) == "layers 2–4, 7"
    assert layer_list((5,)) == "layer 5"
    assert percent(0.999) == ">99 %"
    assert percent(0.001) == "<1 %"
    assert percent(1.0) == "100 %"
    assert clipped("abcdef", 4) == "abc…"
    assert to_ascii("a › b … “q” ✗ 日") == 'a > b ~ "q" x ?'


def test_a_narrow_title_keeps_the_metric_and_gives_up_the_unit_first():
    envelope = Envelope(1, 64)
    envelope.extend(np.arange(0, 40, 10), np.ones((4, 1), np.float32))
    data = ChartData("residual_attention/sum_error", (envelope.curve(0),), (0, 30), "relative")
    titles = {width: text_of(draw(data, width, 8)[0]) for width in (60, 40, 30)}
    assert "residual_attention/sum_error" in titles[60]
    assert titles[60].rstrip().endswith("relative")
    assert "residual_attention/sum_error" in titles[40]
    assert "relative" not in titles[40]
    assert "…/sum_error" in titles[30]


def test_values_are_told_of_curves_with_other_steps_too():
    curves = [curve([1.0, 2.0, 3.0]), curve([5.0, 6.0], first=10), curve([7.0, 8.0, 9.0])]
    found = raster.values_at(curves, 1)
    assert (found[0], found[2]) == (2.0, 8.0) and np.isnan(found[1])
    assert found[:1] == [raster.value_at(curves[0], 1)]


def test_a_cursor_leaves_nothing_where_it_was():
    curves = (curve(np.arange(40.0)),)
    data = ChartData("x/y", curves, (0, 39), marks=(StepMark(30, "fault"),))
    first, _, again = (draw(replace(data, cursor=step), 60, 12) for step in (5, 20, 5))
    assert first == again
    assert draw(data, 60, 12) == draw(data, 60, 12)
    assert not any(glyphs.CURSOR_LINE in text_of(line) for line in draw(data, 60, 12))


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


def plainly_drawn(curve, span, scale, width, height):
    """Highest and lowest dot of each column, a bucket and a column at a time."""
    top, bottom = [height] * width, [-1] * width

    def row(value):
        return int(np.rint((1 - float(scale.position(value))) * (height - 1)))

    def middle(place):
        return (
            float(scale.position(curve.low[place])) + float(scale.position(curve.high[place]))
        ) / 2

    at = dot_columns((curve.first + curve.last) / 2, span, width)
    known = ~np.isnan(curve.low)
    whole = (curve.marks == 0) & known
    for place in np.flatnonzero(known):
        column = at[place]
        top[column] = min(top[column], row(curve.high[place]))
        bottom[column] = max(bottom[column], row(curve.low[place]))
    joined = set()
    for place in range(len(curve) - 1):
        if whole[place] and whole[place + 1]:
            start, stop = at[place], at[place + 1]
            joined |= set(range(start, stop))
            for column in range(start + 1, stop):
                way = (column - start) / (stop - start)
                level = middle(place) + (middle(place + 1) - middle(place)) * way
                top[column] = bottom[column] = int(np.rint((1 - level) * (height - 1)))
    ends = list(zip(top, bottom, strict=True))
    for column in joined:
        next_top, next_bottom = ends[column + 1]
        top[column] = min(top[column], next_bottom + 1)
        bottom[column] = max(bottom[column], next_top - 1)
    return top, bottom


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("buckets", [1, 2, 9, 40, 300])
def test_strokes_are_those_of_a_plain_drawing(buckets, log):
    for seed in range(6):
        chance = np.random.default_rng(seed)
        envelope = Envelope(3, 512)
        values = chance.lognormal(size=(2 * buckets, 3)).astype(np.float32)
        values[chance.random(values.shape) < 0.05] = np.nan
        values[chance.random(values.shape) < 0.02] = np.inf
        steps = chance.integers(1, 4, 2 * buckets).cumsum()
        envelope.extend(steps, values)
        if seed % 2:
            envelope._halve()
        curves = [envelope.curve(column) for column in range(3)]
        scale = scale_for(curves, log)
        if scale is None:
            continue
        span = (int(steps[0]), int(steps[-1]) + seed)
        top, bottom = raster.strokes(curves, span, scale, 80, 24)
        for place, found in enumerate(curves):
            expected = plainly_drawn(found, span, scale, 80, 24)
            assert (top[place].tolist(), bottom[place].tolist()) == expected
