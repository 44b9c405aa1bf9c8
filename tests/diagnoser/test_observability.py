"""What a fault moves: effects of known size, and what healthy changes make of them."""

from __future__ import annotations

import numpy as np
import pytest

from diagnoser.observability import (
    MOST,
    Label,
    Metric,
    Observed,
    Recorded,
    Seen,
    observe,
    step_spread,
    summarise,
)

KEYS = ("ffn@0/a", "ffn@1/a", "output/b")
NAMES = ("ffn/a", "ffn/a", "output/b")
FAULT = Label(id="run", family="bert", cause="qkv/dimension", operator="QHD", value=0.5)


def recorded(values, fired=None):
    values = np.array(values, dtype=np.float32)
    frames = len(values)
    return Recorded(
        steps=np.arange(frames),
        keys=KEYS,
        names=NAMES,
        floor=np.array([0.1, 0.1, 0.1], dtype=np.float32),
        values=values,
        fired=fired or tuple(frozenset() for _ in range(frames)),
    )


STILL = np.zeros((8, 3))


def changed(column, values, start=4):
    found = STILL.copy()
    found[start:, column] = values
    return recorded(found)


def run(name="run", effects=None, cause="qkv/dimension", operator="QHD", family="bert", **more):
    label = Label(id=name, family=family, cause=cause, operator=operator if cause else None)
    more = {"fired": (), **more}
    return Observed(label=label, frames=4, effects=effects or {}, **more)


HEALTHY = [run(f"h{n}", {"ffn/a": n / 10, "output/b": -n}, cause=None) for n in range(20)]


def test_the_spread_is_the_deviation_of_neighbours():
    noise = np.random.default_rng(0).normal(0, 2.0, (4000, 1)).astype(np.float32)
    assert step_spread(noise)[0] == pytest.approx(2.0, rel=0.05)
    slow = np.linspace(0, 100, 4000, dtype=np.float32)[:, None]
    assert step_spread(slow)[0] < 0.03  # a trend is no variation
    assert step_spread(np.array([[1.0], [np.nan]], dtype=np.float32)).tolist() == [0.0]
    assert step_spread(noise[:1]).tolist() == [0.0]


def test_an_effect_is_counted_in_units_where_it_is_largest():
    found = observe(FAULT, recorded(STILL), changed(1, -0.3), 4)
    assert found.effects["ffn/a"] == pytest.approx(-3.0)
    assert found.effects["output/b"] == 0.0
    assert found.frames == 4


def test_what_varies_by_itself_counts_less():
    clean = STILL.copy()
    clean[::2, 1] = 1.0  # neighbours differ by 1
    faulty = clean.copy()
    faulty[4:, 1] += 2.0
    found = observe(FAULT, recorded(clean), recorded(faulty), 4)
    assert found.effects["ffn/a"] == pytest.approx(2.0 / (1.4826 / np.sqrt(2)), abs=0.01)


def test_only_frames_from_the_fault_on_count():
    assert observe(FAULT, recorded(STILL), changed(0, 1.0, start=4), 6).frames == 2
    early = STILL.copy()
    early[:4, 0] = 1.0
    assert observe(FAULT, recorded(STILL), recorded(early), 4).effects["ffn/a"] == 0.0


@pytest.mark.parametrize("values", [[0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]])
def test_what_fades_or_grows_is_seen(values):
    found = observe(FAULT, recorded(STILL), changed(0, values), 4)
    assert found.effects["ffn/a"] == pytest.approx(5.0)


def test_effects_end_somewhere():
    assert observe(FAULT, recorded(STILL), changed(0, 1e9), 4).effects["ffn/a"] == MOST


def test_what_appears_or_vanishes_is_no_effect_but_told():
    without = STILL.copy()
    without[4:, 2] = np.nan
    gone = observe(FAULT, recorded(STILL), recorded(without), 4)
    assert gone.presence == ("output/b gone",) and "output/b" not in gone.effects
    new = observe(FAULT, recorded(without), recorded(STILL), 4)
    assert new.presence == ("output/b new",)


def test_a_contract_that_the_twin_fires_too_says_nothing():
    both, mine = frozenset({"ffn@0/a"}), frozenset({"ffn@0/a", "output/b"})
    found = observe(FAULT, recorded(STILL, (both,) * 8), recorded(STILL, (mine,) * 8), 4)
    assert found.fired == ("output/b",)
    late = (mine,) * 4 + (frozenset(),) * 4
    assert observe(FAULT, recorded(STILL), recorded(STILL, late), 4).fired == ()


def test_columns_are_matched_by_name():
    twin = recorded(STILL)
    turned = changed(0, 1.0)
    order = [2, 0]
    other = Recorded(
        turned.steps,
        tuple(KEYS[at] for at in order),
        tuple(NAMES[at] for at in order),
        turned.floor[order],
        turned.values[:, order],
        turned.fired,
    )
    assert observe(FAULT, twin, other, 4).effects == {"output/b": 0.0, "ffn/a": 10.0}


def test_a_metric_is_judged_by_what_healthy_changes_move_it():
    # b moves by up to 19 units in healthy changes, a by up to 1.9
    found = summarise("c", [*HEALTHY, run("one", {"ffn/a": 8.0, "output/b": 18.0})])
    (group,) = found.causes
    assert group.metrics == (Metric("ffn/a", 8.0, "↑", 1.0),)
    assert group.moved == group.seen == 1 and group.fired == 0
    (within,) = summarise("c", [*HEALTHY, run("one", {"output/b": 18.0})]).causes
    assert (within.moved, within.metrics) == (0, ())


def test_metrics_stand_in_the_order_of_clean_spreads_not_of_units():
    runs = [run("one", {"ffn/a": 9.0, "output/b": -40.0}), run("two", {"ffn/a": -9.0})]
    (group,) = summarise("c", [*HEALTHY, *runs]).causes
    assert [(m.name, m.effect, m.direction) for m in group.metrics] == [("ffn/a", 9.0, "↕")]
    (one,) = summarise("c", [*HEALTHY, runs[0]]).causes
    assert [(m.name, m.direction) for m in one.metrics] == [("ffn/a", "↑"), ("output/b", "↓")]


def test_one_of_twenty_healthy_changes_may_be_over_the_threshold():
    found = summarise("c", [*HEALTHY, run("one", {"ffn/a": 8.0})])
    assert (found.healthy, found.healthy_seen, found.runs) == (20, 1, 1)
    assert 1.0 <= found.threshold < 1.1


def test_only_what_hardly_any_healthy_change_makes_vanish_counts():
    often = [run(f"f{n}", cause=None, presence=("x gone",)) for n in range(5)]
    runs = [run("one", presence=("x gone",)), run("two", presence=("y gone",))]
    (group,) = summarise("c", [*HEALTHY, *often, *runs]).causes
    assert group.moved == 1
    (group,) = summarise("c", [*HEALTHY, *often, runs[1]]).causes
    assert group.metrics == (Metric("y", None, "gone", 1.0),)


def test_runs_are_counted_by_family_and_severity():
    runs = [
        Observed(label=FAULT, frames=4, fired=("ffn/a",), effects={}),
        Observed(label=FAULT, frames=4, fired=(), effects={}),
        Observed(label=FAULT, frames=0, fired=("ffn/a",), effects={}),  # nothing came after
    ]
    found = summarise("c", [*HEALTHY, *runs])
    (group,) = found.operators
    assert (group.operator, group.runs, group.fired, group.seen) == ("QHD", 2, 1, 1)
    assert group.families == {"bert": Seen(2, 1)} and group.severities == {"0.5": Seen(2, 1)}
    assert found.causes[0].severities == {}
