"""What ``watch`` says of a stream, with a scripted engine."""

import json

from streams import end, event, frame, header

from diagnoser.diagnosis import Diagnosis
from monitor.sources.source import Batch
from monitor.watching import Watcher, as_json, as_text

RUN = header().run


class Engine:
    """Faulty from the third frame on."""

    made = 0

    def __init__(self, header):
        self.frames = 0
        type(self).made += 1

    def update(self, frame):
        self.frames += 1
        faulty = self.frames >= 3
        return Diagnosis(
            run=RUN,
            frames=self.frames,
            last_step=frame.step,
            verdict="faulty" if faulty else "insufficient",
            probability=0.9 if faulty else float("nan"),
            category="masking" if faulty else None,
            category_probability=0.8 if faulty else None,
            layers=(1,) if faulty else (),
        )


class Broken(Engine):
    def update(self, frame):
        raise ValueError("cannot read\nthis")


class Rebinding(Engine):
    rebound = 0

    def rebind(self, header):
        self.rebound += 1


def kinds(changes):
    return [change["kind"] for change in changes]


def watch(batches, engine=Engine):
    watcher = Watcher(engine, clock=lambda: 1.0)
    return watcher, [change for batch in batches for change in watcher.take(batch)]


def test_only_changes_are_told():
    frames = tuple(frame(n + 1, n * 10) for n in range(6))
    _, changes = watch(
        [
            Batch(link="connecting"),
            Batch(link="connecting"),
            Batch(records=(header(),), link="live", state="training", text="Connected."),
            Batch(records=frames, link="live", state="training"),
            Batch(link="live", state="training"),
        ]
    )
    assert kinds(changes) == ["link", "link", "run", "state", "diagnosis", "diagnosis"]
    assert changes[-1]["step"] == 20
    assert changes[-1]["diagnosis"].verdict == "faulty"


def test_events_and_the_end_are_told_and_the_end_comes_after_all_records():
    watcher, changes = watch(
        [
            Batch(records=(header(), event(1, 5, "fault", "injected")), link="live"),
            Batch(records=(end(2, 9),), link="ended", text="It ended."),
        ]
    )
    assert not watcher.over
    changes += watcher.take(Batch(link="ended"))
    assert watcher.over
    assert kinds(changes) == ["link", "run", "event", "end", "link"]
    assert changes[2]["event"] == "fault"
    assert changes[-1]["text"] == "It ended."


def test_a_lost_run_ends_the_watch():
    watcher, changes = watch([Batch(link="live"), Batch(link="lost", text="Gone.")])
    assert watcher.over
    assert changes[-1] == {"kind": "link", "time": 1.0, "link": "lost", "text": "Gone."}


def test_each_line_of_json_is_an_object_without_nan():
    _, changes = watch([Batch(records=(header(), frame(1, 0)), link="live")])
    objects = [json.loads(as_json(change)) for change in changes]
    assert objects[-1]["diagnosis"]["probability"] is None
    assert all("\n" not in as_json(change) for change in changes)


def test_text_lines_name_the_fault():
    records = (header(), *[frame(n + 1, n) for n in range(3)])
    _, changes = watch([Batch(records=records, link="live")])
    line = as_text(changes[-1])
    assert "FAULTY (probability of a fault 0.90): masking (0.80) at layer 1" in line
    assert all(as_text(change).count("\n") == 0 for change in changes)


def test_an_engine_that_fails_is_told_once_and_watching_goes_on():
    _, changes = watch(
        [Batch(records=(header(), frame(1, 0), frame(2, 1), event(3, 1)), link="live")], Broken
    )
    assert kinds(changes) == ["link", "run", "note", "event"]
    assert changes[2]["text"] == "no diagnosis: cannot read this"


def test_a_later_header_of_the_same_run_keeps_the_engine():
    made = Rebinding.made
    records = (header(), frame(1, 0), header(seq=2, revision=1), frame(3, 1), frame(4, 2))
    watcher, _ = watch([Batch(records=records, link="live")], Rebinding)
    assert Rebinding.made == made + 1
    assert watcher.diagnosis.frames == 3
