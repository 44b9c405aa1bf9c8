"""Metrics that come on few frames: their last value stands, and two of them fire a contract."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
import synthetic_runs

from diagnoser.columns import Columns
from diagnoser.contracts import ContractWatch, verdict
from diagnoser.features import RollingFeatures
from diagnoser.schema import feature_names
from probe.catalogue import METRICS

RARE = {metric.name for metric in METRICS if metric.rare}


def with_values(header, key, values):
    place = [column.key for column in header.columns].index(key)
    frames = synthetic_runs.frames(header, len(values))
    found = []
    for frame, value in zip(frames, values, strict=True):
        array = frame.array.copy()
        array[place] = value
        found.append(msgspec.structs.replace(frame, values=array.tobytes()))
    return found


def sometimes(value, count=13, every=6):
    return [value if number % every == 0 else np.nan for number in range(count)]


def test_a_rare_metric_is_carried_beside_one_of_the_same_node_that_is_not():
    columns = Columns(synthetic_runs.header("gpt2"))
    carried = {m.name for m, c in zip(columns.metrics, columns.carried, strict=True) if c}
    assert carried >= RARE
    assert {"head_error", "confidence"}.isdisjoint(carried)


@pytest.mark.parametrize("name", ["future_effect", "position_missing"])
def test_its_last_value_stands(name):
    header = synthetic_runs.header("gpt2")
    rolling = RollingFeatures(header)
    for frame in with_values(header, f"output/{name}", sometimes(0.5)[:-1]):
        found = rolling.update(frame)
    place = feature_names("output").index(f"{name}:level")
    assert found.nodes["output"][0, place] > 1.5


def test_two_measurements_however_far_apart_make_it_fire():
    header = synthetic_runs.header("gpt2")
    watch = ContractWatch(Columns(header))
    for frame in with_values(header, "output/packing_effect", sometimes(0.2)[:7]):
        watch.update(frame)
    (firing,) = watch.firings()
    assert (firing.since_step, round(firing.value, 3)) == (0, 0.2)
    assert verdict(watch.firings()).root_cause == "dynamic_mask"


def test_what_was_read_inside_speaks_before_what_shows_outside():
    header = synthetic_runs.header("gpt2")
    watch = ContractWatch(Columns(header))
    frames = with_values(header, "output/future_effect", [0.3] * 4)
    place = [column.key for column in header.columns].index("score@1/scale_ratio")
    for frame in frames:
        array = frame.array.copy()
        array[place] = 2.0
        watch.update(msgspec.structs.replace(frame, values=array.tobytes()))
    assert [f.metric for f in watch.firings()] == ["scale_ratio", "future_effect"]
