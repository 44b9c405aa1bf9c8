from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from probe.optimizers import given, highest_rate, loss_scale, parameters_of
from probe.stepping import Stepping


@pytest.fixture
def two():
    model = nn.Linear(3, 2)
    return torch.optim.SGD([model.weight], lr=0.1), torch.optim.AdamW([model.bias], lr=0.3)


def test_optimizers_are_found_in_whatever_holds_them(two):
    one, other = two
    wrapped = SimpleNamespace(optimizer=SimpleNamespace(optimizer=one))
    assert given(None) == []
    assert given(one) == [one]
    assert given(wrapped) == [one]
    assert given([wrapped, other, one]) == [one, other]
    assert given({"a": one, "b": (other,)}) == [one, other]


@pytest.mark.parametrize("odd", ["adam", 3, iter([]), nn.Linear(2, 2), SimpleNamespace(step=print)])
def test_what_is_no_optimizer_is_left_out(odd):
    assert given(odd) == []


def test_parameters_mistaken_for_optimizers_are_left_alone():
    parameters = nn.Linear(2, 2).parameters()
    assert given(parameters) == []
    assert len(list(parameters)) == 2


def test_the_highest_rate_of_any_group(two):
    assert highest_rate(two) == 0.3
    assert math.isnan(highest_rate([]))
    two[0].param_groups[0]["lr"] = torch.tensor(0.5)
    assert highest_rate(two) == 0.5
    assert [p.shape for o in two for p in parameters_of(o)] == [(2, 3), (2,)]
    assert loss_scale(two[0]) is None


def told(*turns, count=2):
    """Steps that are over after each turn, as the probe asks: ``f`` is a forward."""
    stepping, over, seen = Stepping(count), 0, []
    for turn in turns:
        if turn == "f":
            if stepping.begun:
                over += 1
                stepping.over()
        else:
            if stepping.begins(turn):
                over += 1
                stepping.over()
            if stepping.stepped(turn):
                over += 1
                stepping.over()
        seen.append(over)
    return seen


def test_a_step_is_over_with_the_last_optimizer():
    assert told("f", 0, 1, "f", 1, 0) == [0, 0, 1, 1, 1, 2]
    assert told("f", "f", 0, count=1) == [0, 0, 1]


def test_or_with_the_next_forward_where_one_sat_it_out():
    assert told("f", 0, "f", 0, 1, "f") == [0, 0, 1, 1, 2, 2]


def test_or_when_one_steps_again():
    assert told("f", 0, 0, 1) == [0, 0, 1, 2]
