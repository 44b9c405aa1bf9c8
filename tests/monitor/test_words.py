"""Lines, numbers and words as they are written on the screen."""

import pytest

from diagnoser.phrases import layer_list
from monitor.charts.line import fitted, spread, text_of
from monitor.formatting import clipped, number, percent
from monitor.glyphs import to_ascii


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
