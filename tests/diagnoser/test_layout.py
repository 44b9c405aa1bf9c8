"""Tables that an earlier version wrote: what it did not know is absent, the rest is the same."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from diagnoser.layout import Reading, clash, current

OURS = current()


def earlier() -> tuple[msgspec.Struct, int, int]:
    """A layout without the metric ``mask/hidden_near`` and the third rule; in which place the
    metric's first feature would stand, and how many it has."""
    names = OURS.features["mask"]
    own = [at for at, name in enumerate(names) if name.startswith("hidden_near:")]
    without = tuple(name for at, name in enumerate(names) if at not in own)
    kept = tuple(text for text in OURS.metrics["mask"] if not text.startswith("hidden_near/"))
    layout = msgspec.structs.replace(
        OURS,
        features=OURS.features | {"mask": without},
        metrics=OURS.metrics | {"mask": kept},
        rules=OURS.rules[:2] + OURS.rules[3:],
    )
    return layout, own[0], len(own)


def test_every_feature_and_rule_has_a_name_of_its_own():
    assert len(set(OURS.rules)) == len(OURS.rules)
    assert all(len(set(names)) == len(names) for names in OURS.features.values())


def test_what_an_earlier_version_did_not_know_is_absent():
    layout, first, count = earlier()
    assert clash(layout, OURS) == "" and layout.digest != OURS.digest
    reading = Reading.of(layout, OURS)
    rows = np.arange(2 * len(layout.features["mask"]), dtype=np.float16).reshape(2, -1) + 1
    found = reading.nodes("mask", rows)
    assert found.shape == (2, len(OURS.features["mask"])) and found.dtype == np.float16
    assert not found[:, first : first + count].any()
    assert np.array_equal(np.delete(found, np.s_[first : first + count], axis=1), rows)
    met = np.ones((1, len(layout.rules)), dtype=np.float32)
    assert np.flatnonzero(reading.fired(met)[0] == 0).tolist() == [2]


def test_features_that_moved_are_found_and_those_given_up_are_left_out():
    names = OURS.features["drift"]
    layout = msgspec.structs.replace(
        OURS, features=OURS.features | {"drift": ("gone:value", *reversed(names))}
    )
    rows = np.arange(len(names) + 1, dtype=np.float16)[None]
    found = Reading.of(layout, OURS).nodes("drift", rows)
    assert found.tolist() == [list(range(len(names), 0, -1))]


def test_the_same_layout_copies_nothing():
    rows = np.zeros((3, len(OURS.features["mask"])), dtype=np.float16)
    assert Reading.of(OURS, OURS).nodes("mask", rows) is rows


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"revision": "0"}, "revision 0"),
        ({"metrics": {"mask": ("hidden/share/True/0.5",)}}, "mask/hidden is hidden/share/True/0.5"),
    ],
)
def test_what_means_something_else_is_named(change, words):
    assert words in clash(msgspec.structs.replace(OURS, **change), OURS)
