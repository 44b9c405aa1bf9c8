"""The demo's training in this process: when its fault comes, and what does not fit."""

import pytest

from monitor.demo_training import main
from probe.schema import End, Event, Frame
from probe.trace import load


@pytest.fixture(autouse=True)
def places(monkeypatch, tmp_path):
    monkeypatch.setenv("DEFAULTPP_STATE_DIR", str(tmp_path / "state"))
    (tmp_path / "runtime").mkdir(mode=0o700)
    monkeypatch.setenv("DEFAULTPP_RUNTIME_DIR", str(tmp_path / "runtime"))


def train(path, *words):
    status = main(
        ["--steps", "5", "--healthy", "2", "--seed", "1000000", "--trace", str(path), *words]
    )
    return status, load(path) if path.exists() else []


def faults(records):
    return [r for r in records if isinstance(r, Event) and r.kind == "fault"]


def test_without_a_fault_nothing_is_marked(tmp_path):
    status, records = train(tmp_path / "t.trace")
    assert status == 0
    assert faults(records) == []
    assert len([r for r in records if isinstance(r, Frame)]) >= 4
    assert isinstance(records[-1], End)


def test_a_fault_is_marked_at_its_step(tmp_path):
    _, records = train(tmp_path / "t.trace", "--fault", "residual/skip_connection")
    (fault,) = faults(records)
    assert fault.step == 2
    assert fault.text.startswith("injected residual/skip_connection: ")


def test_a_fault_of_initialisation_is_there_from_the_first_step_and_says_so(tmp_path):
    _, records = train(tmp_path / "t.trace", "--fault", "ffn/weight_initialization")
    (fault,) = faults(records)
    assert fault.step == 0
    assert "from the first step on" in fault.text


def test_a_fault_that_cannot_befall_the_model_is_one_line(tmp_path, capsys):
    status, records = train(tmp_path / "t.trace", "--fault", "kv_cache/cache_position")
    assert (status, records) == (64, [])
    assert capsys.readouterr().err.count("\n") == 1
