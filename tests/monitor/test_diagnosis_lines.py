import msgspec
import pytest
from scripted_engine import ScriptedEngine

from diagnoser.crashes import Crash
from diagnoser.diagnosis import Diagnosis
from monitor.charts.line import text_of, width_of
from monitor.diagnosing import DiagnosisState
from monitor.diagnosis_text import headline
from monitor.sources.fake import Script, records
from monitor.widgets.causes_pane import found_lines
from monitor.widgets.diagnosis_lines import lines_for
from probe.schema import Frame


def faulty():
    everything = records(Script(fault_step=50))
    engine = ScriptedEngine(everything[0])
    return [engine.update(r) for r in everything if isinstance(r, Frame)][-1]


def text(state, width=76, height=12):
    return "\n".join(text_of(line) for line in lines_for(state, width, height))


def test_a_faulty_run_is_told_in_full():
    shown = text(DiagnosisState("ready", faulty()), 90, 14)
    for part in (
        "FAULTY", "97 %", "since step 50", "masking 93 %", "mask application 88 %", "layer 2",
        "Mask not applied, or inverted", "mask generation 6 %", "31 % of the pairs",
        "it should be 0.", "Try", "Pass the mask",
    ):  # fmt: skip
        assert part in shown


def test_an_unsure_category_is_told_as_such_everywhere():
    diagnosis = msgspec.structs.replace(faulty(), unsure=True, category_probability=0.3)
    assert "unsure: masking 30 %" in text(DiagnosisState("ready", diagnosis), 90, 14)
    # Beside the graph of a screen of 80 columns there are 47.
    assert all(
        width_of(line) <= 47 for line in lines_for(DiagnosisState("ready", diagnosis), 47, 9)
    )
    assert "category unsure, likeliest masking (0.30)" in headline(diagnosis)
    assert "unsure: masking" in text_of(found_lines(diagnosis, 90)[0])
    sure = faulty()
    assert not any("unsure" in told for told in (headline(sure), text_of(found_lines(sure, 90)[0])))


CRASH = Crash(80, "RuntimeError at attention@1: no kernel", "kernel", 4, "Shorten the sequences")


@pytest.mark.parametrize("diagnosis", [None, faulty()])
def test_what_killed_the_training_stands_above_the_diagnosis(diagnosis):
    shown = text(DiagnosisState("ready", diagnosis, crash=CRASH), 90, 14)
    assert "died at step 80: RuntimeError at attention@1: no kernel" in shown.splitlines()[0]
    assert "Likely kernel  Shorten the sequences" in shown
    assert ("FAULTY" in shown) == (diagnosis is not None)


@pytest.mark.parametrize("height", [2, 4, 9])
def test_a_crash_fits_its_place(height):
    lines = lines_for(DiagnosisState("ready", faulty(), crash=CRASH), 48, height)
    assert len(lines) <= height
    assert max(width_of(line) for line in lines) <= 48


@pytest.mark.parametrize("width", [30, 48, 76, 120])
@pytest.mark.parametrize("height", [1, 4, 9, 12, 30])
def test_it_fits_its_place(width, height):
    lines = lines_for(DiagnosisState("ready", faulty()), width, height)
    assert len(lines) <= height
    assert "FAULTY" in text_of(lines[0])
    if width >= 48:
        assert max(width_of(line) for line in lines) <= width


def test_other_states():
    assert "diagnosis loading" in text(DiagnosisState("loading"))
    assert "waiting for the first frame" in text(DiagnosisState("ready"))
    failed = text(DiagnosisState("failed", None, "weights are missing: install the package again"))
    assert failed.strip() == ("✗ diagnosis stopped: weights are missing: install the package again")
    common = {"run": "r", "frames": 3, "last_step": 30, "probability": 0.02}
    few = text(DiagnosisState("ready", Diagnosis(verdict="insufficient", **common)))
    assert "not enough evidence yet" in few
    assert "3 frames" in few
    well = text(DiagnosisState("ready", Diagnosis(verdict="healthy", **common)))
    assert "healthy" in well
    assert "2 %" in well
    assert "FAULTY" not in well


def test_a_faulty_run_without_a_cause_is_still_told():
    bare = Diagnosis(run="r", frames=9, last_step=90, verdict="faulty", probability=0.8)
    assert "FAULTY" in text(DiagnosisState("ready", bare))


@pytest.mark.parametrize("width", [46, 60])
def test_a_healthy_run_is_told_in_full_beside_the_graph(width):
    well = Diagnosis(run="r", frames=1234, last_step=61_700, verdict="healthy", probability=0.01)
    lines = lines_for(DiagnosisState("ready", well), width, 12)
    assert max(width_of(line) for line in lines) <= width
    told = " ".join(text_of(line).strip() for line in lines if line)
    assert "probability of a fault 1 %" in told and "after 1234 frames, step 61700" in told
