"""A model without a config is held to what it did in its first samples, in all layers alike."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny_models import Seen
from torch import nn

import probe
from probe.habits import Habits

WIDTH, HEADS, VOCABULARY, LENGTH = 32, 4, 60, 24
STEPS, CHANGE = 14, 8
PAD = 0


class Habit(nn.Module):
    """How all layers of a :class:`Written` work: ``seen`` (n, n) bool, which pairs are shown."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = torch.ones(LENGTH, LENGTH).tril().bool()
        self.activate, self.by_hand = F.gelu, False
        self.hides_padding, self.heads = False, HEADS

    def attend(self, q, k, v, ids):
        shown = self.seen[None, None]
        if self.hides_padding:
            shown = shown & (ids != PAD)[:, None, None, :]
        if not self.by_hand:
            return F.scaled_dot_product_attention(q, k, v, attn_mask=shown)
        scores = q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5
        return F.softmax(scores.masked_fill(~shown, -torch.inf), dim=-1) @ v


class Block(nn.Module):
    def __init__(self, habit: Habit) -> None:
        super().__init__()
        self.ln1, self.ln2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.proj = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)
        self.habit = habit

    def forward(self, x, ids):
        parts = self.qkv(self.ln1(x)).chunk(3, dim=-1)
        q, k, v = (t.unflatten(-1, (self.habit.heads, -1)).transpose(1, 2) for t in parts)
        x = x + self.proj(self.habit.attend(q, k, v, ids).transpose(1, 2).flatten(2))
        return x + self.down(self.habit.activate(self.up(self.ln2(x))))


class Written(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.habit = Habit()
        self.tok, self.pos = nn.Embedding(VOCABULARY, WIDTH), nn.Embedding(LENGTH, WIDTH)
        self.blocks = nn.ModuleList(Block(self.habit) for _ in range(3))
        self.ln, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, VOCABULARY)

    def forward(self, ids):
        x = self.tok(ids) + self.pos.weight
        for block in self.blocks:
            x = block(x, ids)
        return self.head(self.ln(x))


def watched(path, change, begun=lambda habit: None, ids_of=lambda step, ids: ids):
    """``change(habit, step)`` before each step; ``begun(habit)`` before the first."""
    torch.manual_seed(2)
    model = Written()
    begun(model.habit)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.0)
    with probe.attach(model, optimizer, endpoint=False, trace=path, every=1, budget=None):
        for step in range(STEPS):
            change(model.habit, step)
            model.train(model.habit.training)
            ids = ids_of(step, torch.randint(1, VOCABULARY, (4, LENGTH)))
            F.cross_entropy(model(ids).flatten(0, 1), ids.roll(-1, 1).flatten()).backward()
            optimizer.step()
            optimizer.zero_grad()
    return Seen(path)


def ever(seen):
    """What fired in any sample."""
    return set().union(*(seen.fired(step, step) for step in range(STEPS)))


def from_change(name, value):
    """Every layer at once, from step :data:`CHANGE` on."""
    return lambda habit, step: setattr(habit, name, value) if step >= CHANGE else None


def windowed(width):
    return torch.ones(LENGTH, LENGTH).tril().triu(1 - width).bool()


ALL = torch.ones(LENGTH, LENGTH).bool()


@pytest.mark.parametrize(
    ("change", "metric", "contract"),
    [
        (from_change("seen", ALL), "mask@1/future_mass", "mask/leaked"),
        (from_change("seen", windowed(4)), "mask@1/hidden", "mask/hidden"),
        (from_change("seen", ~ALL.tril()), "mask@1/hidden", "mask/hidden"),
        (from_change("activate", torch.tanh), "ffn@1/activation_error", "ffn/activation_error"),
        (from_change("activate", lambda x: F.gelu(F.gelu(x))), "ffn@1/activation_error",
         "ffn/activation_error"),
        (from_change("by_hand", True), "attention@1/kernel_changed", "attention/kernel_changed"),
        (from_change("heads", HEADS // 2), "qkv@1/head_count", "qkv/head_count"),
    ],
    ids=["mask gone", "window", "mask inverted", "tanh", "twice", "kernel", "heads"],
)  # fmt: skip
def test_a_change_in_all_layers_at_once_is_seen(change, metric, contract, tmp_path):
    seen = watched(tmp_path / "t", change)
    assert seen.fired(until=CHANGE - 1) == set()
    assert contract in seen.fired(from_step=CHANGE)
    assert (abs(seen[metric][CHANGE:]) > 1e-3).all()


def test_kernels_and_heads_are_compared_once_there_is_a_habit(tmp_path):
    seen = watched(tmp_path / "t", lambda habit, step: None)
    for key in ("attention@0/kernel_changed", "qkv@0/head_count"):
        assert np.isnan(seen[key][:6]).all() and (seen[key][6:] == 0.0).all()


def by_turns(name, *values):
    return lambda habit, step: setattr(habit, name, values[step % len(values)])


@pytest.mark.parametrize(
    "change",
    [
        by_turns("seen", ALL, ALL, ALL.tril()),
        by_turns("activate", F.gelu, F.relu),
        by_turns("by_hand", False, False, False, True),
        by_turns("heads", HEADS, 1),
        lambda habit, step: None,
    ],
    ids=["masks", "activations", "kernels", "heads", "nothing"],
)
def test_a_model_that_goes_by_turns_has_no_habit(change, tmp_path):
    assert ever(watched(tmp_path / "t", change)) == set()


@pytest.mark.parametrize("shown", [ALL, ALL.tril()], ids=["both ways", "causal"])
def test_padding_may_come_at_any_time(shown, tmp_path):
    """A mask made of the ids hides nothing in the first batches, which are full."""

    def padded_late(step, ids):
        if step >= CHANGE:
            ids[1:, -7:] = PAD
        return ids

    def begun(habit):
        habit.seen, habit.hides_padding = shown, True

    seen = watched(tmp_path / "t", lambda habit, step: None, begun, padded_late)
    assert ever(seen) == set()


def test_a_window_from_the_start_is_a_habit_too(tmp_path):
    def begun(habit):
        habit.seen = windowed(6)

    assert ever(watched(tmp_path / "t", lambda habit, step: None, begun)) == set()


def test_evaluation_may_take_another_kernel(tmp_path):
    """Only training is sampled."""

    def change(habit, step):
        habit.train(step < CHANGE)
        habit.by_hand = not habit.training

    assert ever(watched(tmp_path / "t", change)) == set()


def answers(*given):
    habits = Habits()
    held = []
    for value in map(torch.tensor, given):
        held.append(habits.held_to("a", value).item())
        habits.saw("a", value)
    return held, bool(habits.formed("a"))


def test_six_that_agree_are_a_habit():
    assert answers(*[3] * 6, 4, 5, 3) == ([3] * 9, True)
    assert answers(*[3] * 5) == ([3] * 5, False)


def test_one_of_the_first_six_that_differs_prevents_it():
    given = [3] * 5 + [4] + [3] * 20 + [5]
    assert answers(*given) == (given, False)


def test_every_name_has_a_habit_of_its_own():
    habits = Habits()
    for _ in range(6):
        habits.saw("a", torch.tensor(True))
    assert habits.formed("a") and not habits.formed("b")
    assert not habits.held_to("b", torch.tensor(False))


def test_on_another_device_it_begins_anew():
    habits = Habits()
    for _ in range(6):
        habits.saw("a", torch.tensor(1))
    there = torch.tensor(2, device="meta")
    assert habits.held_to("a", there) is there
    habits.saw("a", there)
    assert habits.held_to("a", torch.tensor(5)).item() == 5


def test_a_number_is_not_asked_of_the_default_device():
    habits = Habits()
    with torch.device("meta"):
        first = [habits.first_number("heads", 4) for _ in range(8)]
    assert np.isnan(first[:6]).all() and first[6:] == [4.0, 4.0]
