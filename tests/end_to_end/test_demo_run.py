"""The demo's real training, without and with the diagnosis."""

import json
import os
import sys

import pytest
from training_processes import STAND_IN, drain, outcome, wait_for

from monitor.demo import Demo, DemoSource, DemoTraining
from monitor.sources.live import open_entry
from probe.schema import Control, End, Event, Frame, Header
from probe.trace import load


def run_of(**options):
    return Demo(pace=0.0, **options)


@pytest.fixture
def demo(places):
    """Starts a training; gives it and a source of it."""
    started = []

    def start(**options):
        training = DemoTraining(run_of(trace=places / "demo.trace", **options))
        started.append((training, DemoSource(training)))
        return started[-1]

    yield start
    for training, source in started:
        source.close()
        training.end()


def test_it_trains_healthy_then_marks_the_fault_then_ends(demo, places):
    _, source = demo(steps=9)
    assert source.read(timeout=0.0).link == "connecting"
    assert "still starting" in source.send(Control(action="pause"))
    records, batch = drain(source, lambda records, batch: batch.link == "ended")
    faults = [r for r in records if isinstance(r, Event) and r.kind == "fault"]
    assert [(fault.step, fault.text.split(":")[0]) for fault in faults] == [
        (3, "injected masking/mask_application")
    ]
    assert [r.step for r in records if isinstance(r, Frame)] == list(range(9))
    assert "every step is sampled" in next(r.text for r in records if isinstance(r, Event))
    assert isinstance(records[-1], End)
    assert "steps are done" in batch.text
    assert [r.seq for r in load(places / "demo.trace")] == [r.seq for r in records]


def test_a_training_does_not_outlive_a_monitor_that_was_killed(demo, places):
    training, source = demo(steps=100_000)
    drain(source, lambda records, batch: any(isinstance(r, Frame) for r in records))
    training._process.stdin.close()  # as the system does with what a killed process held
    wait_for(lambda: training.status is not None, "the training's end")
    assert training.status == 0
    assert isinstance(list(load(places / "demo.trace"))[-1], End)


@pytest.fixture
def quick_training(monkeypatch):
    """The stand-in in place of the real training: these tests are about its process."""
    words = [sys.executable, str(STAND_IN), "--ignore-input"]
    monkeypatch.setattr(Demo, "command", lambda self: words)


def test_another_run_may_be_watched_meanwhile_and_leaving_ends_the_training(demo, quick_training):
    training, source = demo(steps=100_000)
    records, _ = drain(source, lambda records, batch: len(records) > 10)
    pid = next(r.pid for r in records if isinstance(r, Header))
    source.close()
    assert training.status is None
    os.kill(pid, 0)
    again = open_entry(training.entry())
    found, _ = drain(again, lambda records, batch: len(records) > 20)
    again.close()
    assert next(r.pid for r in found if isinstance(r, Header)) == pid
    training.end()
    assert training.status is not None
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert not training.log.exists()


def test_a_training_that_dies_is_lost_with_its_last_words(demo, quick_training):
    training, source = demo(steps=100_000)
    records, _ = drain(source, lambda records, batch: len(records) > 10)
    os.kill(next(r.pid for r in records if isinstance(r, Header)), 9)
    _, batch = drain(source, lambda records, batch: batch.link == "lost")
    assert "It said:" in batch.text
    wait_for(lambda: training.status is not None, "the exit status")


def test_a_training_that_cannot_start_says_why(demo, monkeypatch):
    monkeypatch.setattr(
        Demo, "command", lambda self: ["sh", "-c", "echo first; echo no such thing >&2; exit 1"]
    )
    _, source = demo(steps=9)
    _, batch = drain(source, lambda records, batch: batch.link == "lost")
    assert batch.text == "The training could not start: no such thing"


@pytest.mark.slow
def test_headless_prints_the_same_verdict_as_diagnose_of_its_trace(places):
    trace = places / "demo.trace"
    words = ["demo", "--headless", "--json", "--steps", "24", "--fault", "none"]
    status, out, err = outcome(*words, "--trace", str(trace))
    told = json.loads(out)
    assert "Traceback" not in err
    assert "24/24" in err
    assert status == {"healthy": 0, "faulty": 1, "insufficient": 2}[told["verdict"]]
    again, out, _ = outcome("diagnose", "--json", str(trace))
    assert (again, json.loads(out)) == (status, told)
