"""How many classes of a wrong head are wrong: some of its rows, or the whole of it."""

import pytest
import torch
import torch.nn.functional as F
from tiny_models import VOCABULARY, Seen, make, train

STEPS = 6


def seen_with(tmp_path, wrong, autocast=False):
    """``wrong(head)`` -> a forward in place of the head's."""
    model = make("gpt2")
    model.lm_head.forward = wrong(model.lm_head)
    train(model, "gpt2", STEPS, autocast=autocast, attach={"trace": tmp_path / "t"})
    return Seen(tmp_path / "t")


@pytest.mark.parametrize("autocast", [False, True])
def test_no_class_of_a_healthy_head_is_wrong(tmp_path, autocast):
    seen = seen_with(tmp_path, lambda head: head.forward, autocast)
    assert seen["output/wrong_classes"].tolist() == [0.0] * STEPS


def test_of_zeroed_rows_only_these_are_wrong(tmp_path):
    def zeroed(head):
        kept = torch.ones(VOCABULARY)
        kept[::4] = 0.0
        forward = head.forward
        return lambda states: forward(states) * kept

    assert seen_with(tmp_path, zeroed)["output/wrong_classes"] == pytest.approx(0.25)


def test_of_an_old_copy_every_class_is_wrong_by_a_part(tmp_path):
    def copied(head):
        old = head.weight.detach().clone()
        return lambda states: F.linear(states, old)

    seen = seen_with(tmp_path, copied)
    assert seen["output/wrong_classes"][0] == 0.0  # still the same weights
    # A tied table trains the rows that the batches hold.
    assert (seen["output/wrong_classes"][3:] > 0.9).all()
    assert (seen["output/head_error"][1:] < 0.5).all()
