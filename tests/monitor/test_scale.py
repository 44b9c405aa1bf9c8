"""The axis of values: what it spans, and its ticks."""

import numpy as np
import pytest
from curves import curve

from monitor.charts.scale import scale_for


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


@pytest.mark.parametrize(
    ("values", "ticks"),
    [((3.0, 4.5), (2, 5)), ((7.0, 69.0), (5, 10, 20, 50, 100)), ((1.0, 9.0), (1, 2, 5, 10)),
     ((2.0, 2.0), (2, 5)), ((9.99, 10.01), (5, 10, 20)), ((1e-9, 5e-9), (1e-9, 1e-8))],
)  # fmt: skip
def test_a_logarithmic_axis_fits_what_spans_less_than_a_decade(values, ticks):
    scale = scale_for([curve(values)], log=True)
    assert scale.ticks == pytest.approx(ticks)
    assert (scale.low, scale.high) == (scale.ticks[0], scale.ticks[-1])
