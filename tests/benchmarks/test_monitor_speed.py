"""The monitor's figures under ``pytest -m benchmark -s``; nothing is asserted of a time."""

import pytest
from monitor_speed import MEASURES, short_trace


@pytest.mark.benchmark
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", [name for name in MEASURES if name != "long_trace"])
def test_figures(name, tmp_path):
    for figure in MEASURES[name](short_trace(tmp_path)):
        print(figure)
        assert figure.value >= 0


@pytest.mark.benchmark
@pytest.mark.timeout(600)
def test_figures_of_a_long_trace(tmp_path):
    from big_trace import write

    write(tmp_path / "big.trace", 20_000)
    for figure in MEASURES["long_trace"](tmp_path / "big.trace"):
        print(figure)
        assert figure.value >= 0
