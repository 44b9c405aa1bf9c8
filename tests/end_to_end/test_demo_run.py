"""The demo's real training, without and with the diagnosis."""

import json
import os
import sys

import pytest
from training_processes import STAND_IN, drain, outcome, wait_for

from monitor.demo import Demo, DemoSource
from probe.schema import Control, End, Event, Frame, Header
from probe.trace import load


def run_of(**options):
    return Demo(pace=0.0, **options)


@pytest.fixture
def demo(places):
    sources = []

    def start(**options):
        sources.append(DemoSource(run_of(trace=places / "demo.trace", **options)))
        return sources[-1]

    yield start
    for source in sources:
        source.close()


def test_it_trains_healthy_then_marks_the_fault_then_ends(demo, places):
    source = demo(steps=9)
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


@pytest.fixture
def quick_training(monkeypatch):
    """The stand-in in place of the real training: these tests are about its process."""
    words = [sys.executable, str(STAND_IN), "--ignore-input"]
    monkeypatch.setattr(Demo, "command", lambda self: words)


def test_leaving_ends_the_training(demo, quick_training):
    source = demo(steps=100_000)
    records, _ = drain(source, lambda records, batch: len(records) > 10)
    pid = next(r.pid for r in records if isinstance(r, Header))
    source.close()
    assert source.status is not None
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert not source.log.exists()


def test_a_training_that_dies_is_lost_with_its_last_words(demo, quick_training):
    source = demo(steps=100_000)
    records, _ = drain(source, lambda records, batch: len(records) > 10)
    os.kill(next(r.pid for r in records if isinstance(r, Header)), 9)
    _, batch = drain(source, lambda records, batch: batch.link == "lost")
    assert "It said:" in batch.text
    wait_for(lambda: source.status is not None, "the exit status")


def test_a_training_that_cannot_start_says_why(demo, monkeypatch):
    monkeypatch.setattr(
        Demo, "command", lambda self: ["sh", "-c", "echo first; echo no such thing >&2; exit 1"]
    )
    source = demo(steps=9)
    _, batch = drain(source, lambda records, batch: batch.link == "lost")
    assert batch.text == "The training could not start: no such thing"


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
