"""Curves as dots, dots as cells."""

import numpy as np
import pytest
from curves import curve

from monitor.charts import raster
from monitor.charts.scale import scale_for
from monitor.charts.step_axis import dot_columns
from monitor.envelope import Envelope


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


def test_values_are_told_of_curves_with_other_steps_too():
    curves = [curve([1.0, 2.0, 3.0]), curve([5.0, 6.0], first=10), curve([7.0, 8.0, 9.0])]
    found = raster.values_at(curves, 1)
    assert (found[0], found[2]) == (2.0, 8.0) and np.isnan(found[1])
    assert found[:1] == [raster.value_at(curves[0], 1)]


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
