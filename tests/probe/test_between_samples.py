"""What happens to weights between two samples, which no update of a sampled step explains."""

import numpy as np
import pytest
import torch
from tiny_models import Seen, make, train

EVERY, REDRAWN_BEFORE = 3, 7
STEPS = 15


def watched(tmp_path, before=lambda step, optimizer: None, **options):
    model = make("llama")
    attach = {"trace": tmp_path / "t", "every": EVERY, **options}
    train(model, "llama", STEPS, before=lambda step, _: before(step, model), attach=attach)
    return Seen(tmp_path / "t")


def redraw_head(step, model):
    if step == REDRAWN_BEFORE:
        weight = model.lm_head.weight
        torch.nn.init.normal_(weight, std=float(weight.detach().std()))


def test_a_head_drawn_anew_at_the_same_size_moves_once_by_more_than_its_size(tmp_path):
    seen = watched(tmp_path, redraw_head)
    moved, updates = seen["output/moved_between"], seen["output/update_ratio"]
    assert np.isnan(moved[0])  # no sample before it
    assert [frame.step for frame in seen.frames][3] == 9
    assert moved[3] == pytest.approx(2**0.5, rel=0.05)
    rest = np.delete(moved, [0, 3])
    assert (rest < EVERY * updates.max()).all() and (rest > 0).all()
    assert seen["ffn@1/moved_between"][1:].max() < EVERY * seen["ffn@1/update_ratio"].max()


def test_with_every_step_sampled_nothing_moves_in_between(tmp_path):
    seen = watched(tmp_path, every=1)
    for site in ("qkv@0", "ffn@2", "norm_final", "output"):
        assert seen[f"{site}/moved_between"][1:].tolist() == [0.0] * (STEPS - 1)


def test_weights_set_to_zero_in_between_have_moved_by_their_size(tmp_path):
    def zero(step, model):
        if step == REDRAWN_BEFORE:
            model.model.layers[1].mlp.gate_proj.weight.data.zero_()
            model.model.layers[1].mlp.up_proj.weight.data.zero_()
            model.model.layers[1].mlp.down_proj.weight.data.zero_()

    assert watched(tmp_path, zero)["ffn@1/moved_between"][3] == pytest.approx(1.0, rel=0.01)
