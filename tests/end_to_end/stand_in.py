"""A training that starts within a moment: it drives the probe's publisher without any model.

Every step it appends its number to ``--steps-file``, so that a test can see whether it goes on.
Ends when its standard input closes, or after ``--steps``.
"""

import argparse
import os
import select
import sys
import time
from pathlib import Path

import numpy as np

from probe.publisher import Publisher
from probe.registry import new_entry
from probe.schema import Anatomy, Column, Done, Event, Frame, Header, Metric, Scalars, Site
from probe.status import Status

SITES = tuple(
    Site(name=f"{node}@{layer}", node=node, layer=layer)
    for layer in (0, 1)
    for node in ("qkv", "attention", "ffn")
)
METRICS = (
    Metric("entropy", ("attention",), "statistic", "1", "spread of attention", "0 to 1"),
    Metric("rms", ("qkv", "attention", "ffn"), "positive", "", "size of the output", "about 1"),
)
COLUMNS = tuple(
    Column(site.name, metric.name)
    for site in SITES
    for metric in METRICS
    if site.node in metric.nodes
)


def header(entry):
    anatomy = Anatomy(
        model="StandIn",
        kind="encoder",
        layers=2,
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
    return lambda seq: Header(
        seq=seq,
        run=entry.run,
        name=entry.name,
        created=entry.created,
        host=entry.host,
        pid=entry.pid,
        anatomy=anatomy,
        metrics=METRICS,
        columns=COLUMNS,
    )


def frame(step):
    values = np.linspace(0.1, 1.0, len(COLUMNS), dtype="<f4") + np.float32(step) / 1000
    return lambda seq: Frame(seq=seq, step=step, time=time.time(), values=values.tobytes())


def scalars(step):
    loss = np.array([1.0 / (1 + step)], dtype="<f4").tobytes()
    return lambda seq: Scalars(
        seq=seq, names=("loss",), steps=(step,), times=(time.time(),), values=loss
    )


def event(step, kind, text):
    return lambda seq: Event(seq=seq, step=step, time=time.time(), kind=kind, text=text)


def submit(publisher, draft):
    while not publisher.submit(draft):
        time.sleep(0.001)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--name", default="standin")
    parser.add_argument("--trace", type=Path)
    parser.add_argument("--endpoint")
    parser.add_argument("--steps", type=int, default=10**9)
    parser.add_argument("--interval", type=float, default=0.005)
    parser.add_argument("--steps-file", type=Path)
    parser.add_argument("--ignore-input", action="store_true")
    options = parser.parse_args()
    inputs = [] if options.ignore_input else [sys.stdin]
    state = {"step": 0, "paused": False}

    def control(action):
        state["paused"] = {"pause": True, "resume": False}.get(action, state["paused"])
        return Done(ok=True, text=f"{action} it is")

    def status():
        return Status(state="paused" if state["paused"] else "training", step=state["step"])

    publisher = Publisher(
        new_entry(options.name),
        on_control=control,
        status=status,
        on_error=lambda error: print(error, file=sys.stderr, flush=True),
        endpoint=options.endpoint,
        trace_path=options.trace,
    )
    publisher.start()
    publisher.wait_opened()
    submit(publisher, header(publisher.entry))
    print(publisher.entry.run, flush=True)
    with (options.steps_file or Path(os.devnull)).open("w") as log:
        for step in range(options.steps):
            state["step"] = step
            submit(publisher, frame(step))
            submit(publisher, scalars(step))
            if step == 5:
                submit(publisher, event(step, "fault", "injected on purpose"))
            log.write(f"{step}\n")
            log.flush()
            # The pause between steps is also the wait for the end of the input.
            if select.select(inputs, [], [], options.interval)[0]:
                break
            while state["paused"]:
                time.sleep(0.01)
    publisher.close("the stand-in is done")


if __name__ == "__main__":
    main()
