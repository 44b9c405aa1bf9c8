"""The monitor's figures under ``pytest -m benchmark -s``; nothing is asserted of a time."""

import pytest
from monitor_speed import MEASURES, long_trace, short_trace, written
from speed_figure import Figure, median


@pytest.mark.benchmark
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", MEASURES)
def test_figures(name, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    trace = long_trace(tmp_path, 20_000) if name == "long_trace" else short_trace(tmp_path)
    for figure in MEASURES[name](trace):
        print(figure.cells)
        assert figure.value >= 0 or figure.note


def test_a_figure_says_whether_it_is_as_asked():
    assert median("x", [1.0, 3.0, 2.0], "s", 2).met == "met"
    assert median("x", [1.0, 3.0, 2.5], "s", 2).met == "missed"
    assert median("x", [9.0], "frames/s", 10, "at least").met == "missed"
    assert Figure("x", float("nan"), limit=1.0, note="not installed").met == ""


def test_measuring_one_item_leaves_the_rows_of_the_others():
    first = {name: [f"| {name} | old | 1 s | | | | 0.1 |"] for name in MEASURES}
    head = "| item | what | measured | lowest – highest | asked for | | load | stolen |\n|---|"
    empty = f"# Title\n\nMeasured.\n\n{head}\n\nAfter.\n"
    once = written(empty, first)
    again = written(once, {"idle": ["| idle | new | 2 % | | | | 0.1 |"]})
    assert again.count("old") == len(MEASURES) - 1
    assert "| idle | new | 2 % |" in again
    assert again.startswith("# Title\n\nMeasured on ") and again.endswith("\nAfter.\n")
    assert again.count("Measured") == 1
