"""A small stream of records, and traces made of it, for tests that need no training."""

import numpy as np

from probe.schema import Anatomy, Column, End, Event, Frame, Header, Metric, Scalars, Site, encode
from probe.trace import TraceWriter

SITES = (Site(name="attention@0", node="attention", layer=0), Site(name="output", node="output"))
METRICS = (
    Metric("entropy", ("attention",), "statistic", "1", "spread of attention", "0 to 1"),
    Metric("rms", ("attention", "output"), "positive", "", "size of the output", "about 1"),
)
COLUMNS = (
    Column("attention@0", "entropy"),
    Column("attention@0", "rms"),
    Column("output", "rms"),
)


def header(seq=0, run="20260101-000000-000-abcdef", revision=0, columns=COLUMNS):
    anatomy = Anatomy(
        model="Small",
        kind="encoder",
        layers=1,
        width=8,
        heads=2,
        kv_heads=2,
        head_dim=4,
        vocabulary=16,
        parameters=1000,
        norm_order="post",
        positions="learned",
        sites=SITES,
    )
    return Header(
        seq=seq,
        run=run,
        revision=revision,
        name="small",
        created=1000.0,
        host="here",
        pid=1,
        anatomy=anatomy,
        metrics=METRICS,
        columns=columns,
    )


def frame(seq, step, time=None, values=(0.5, 1.0, 2.0)):
    array = np.array(values, dtype="<f4")
    return Frame(
        seq=seq, step=step, time=1000.0 + step if time is None else time, values=array.tobytes()
    )


def scalars(seq, steps, losses):
    return Scalars(
        seq=seq,
        names=("loss",),
        steps=tuple(steps),
        times=tuple(1000.0 + step for step in steps),
        values=np.array(losses, dtype="<f4").tobytes(),
    )


def event(seq, step, kind="note", text="x"):
    return Event(seq=seq, step=step, time=1000.0 + step, kind=kind, text=text)


def end(seq, step):
    return End(seq=seq, step=step, time=1000.0 + step, reason="done")


def a_run(frames=10, every=10, ended=True):
    """A header, a frame each ``every`` steps, an end."""
    records = [header()]
    records += [frame(n + 1, n * every) for n in range(frames)]
    return records + ([end(frames + 1, frames * every)] if ended else [])


def store(path, records):
    """A trace file of these records; returns its path."""
    writer = TraceWriter(path)
    for record in records:
        assert writer.append(encode(record))
    writer.close()
    return path
