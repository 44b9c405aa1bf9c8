"""What the header says where there is little room."""

import pytest

from monitor.widgets.run_header import HeaderData, header_lines


def first_line(width, **said):
    line, _ = header_lines(HeaderData("bert (ipc)", run="bert-finetune", **said), width)
    return "".join(text for text, _ in line)


@pytest.mark.parametrize("width", [80, 100, 204])
def test_both_pauses_are_told_at_any_width(width):
    line = first_line(width, link="live", state="paused", view_paused=True)
    assert "training and view paused" in line
    assert "live" in line
    assert len(line) == width


@pytest.mark.parametrize("state", ["paused", "training"])
def test_a_pause_of_one_is_not_taken_for_one_of_both(state):
    line = first_line(80, link="live", state=state, view_paused=state == "training")
    assert "and view" not in line
    assert ("training paused" if state == "paused" else "view paused") in line


def test_a_run_that_is_over_has_no_state_of_its_training():
    line = first_line(80, link="ended", state="paused", view_paused=True)
    assert "training" not in line
    assert "view paused" in line


@pytest.mark.parametrize(("every", "told"), [("1", True), ("auto", False), ("10", False)])
def test_a_probe_told_to_measure_every_step_says_so_beside_its_cost(every, told):
    _, line = header_lines(HeaderData("x", overhead=4.65, every=every), 100)
    text = "".join(part for part, _ in line)
    assert "probe costs 465 %" in text
    assert ("to measure every step" in text) is told


@pytest.mark.parametrize(
    ("every", "seconds", "told"), [("auto", 4.0, True), ("auto", 40.0, False), ("10", 4.0, False)]
)
def test_what_a_young_run_costs_is_told_to_be_that_of_its_start(every, seconds, told):
    _, line = header_lines(HeaderData("x", overhead=0.03, every=every, seconds=seconds), 100)
    assert ("probe costs 3.0 % at first" in "".join(part for part, _ in line)) is told
