"""How projections were made is judged by what the run began with, not by where training led."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from family_grid import over
from tiny_models import Seen, make, train


def _scaled(model, factors: dict[str, float], layers=(0, 1)) -> None:
    with torch.no_grad():
        for at in layers:
            attention = model.model.layers[at].self_attn
            for name, factor in factors.items():
                getattr(attention, f"{name}_proj").weight.mul_(factor)


def _run(tmp_path, start=None, later=None, trained: bool = False) -> Seen:
    """A llama of two layers, its weights changed at the start, and ``later`` as training may."""
    model = make("llama", layers=2)
    if trained:
        with torch.no_grad():
            for norm in [n for n in model.modules() if "RMSNorm" in type(n).__name__]:
                norm.weight.mul_(torch.linspace(0.9, 1.1, len(norm.weight)))
    if start is not None:
        start(model)

    def before(step, optimizer):
        if step == 2 and later is not None:
            later(model)

    train(model, "llama", 5, before=before, attach={"trace": tmp_path / "t"})
    return Seen(tmp_path / "t")


def grown(model) -> None:
    """What 100 steps of a copying task at rate 3e-3 made of such a model."""
    _scaled(model, {"q": 4.2, "k": 4.2, "v": 1.7})


def test_training_moves_projections_apart(tmp_path):
    seen = _run(tmp_path, later=grown)
    assert over(seen) == {}
    assert abs(seen["qkv@0/weight_gap"]).max() < 0.2


@pytest.mark.parametrize(("name", "later"), [("q", grown), ("k", None), ("v", grown)])
def test_weights_made_too_small_are_told_to_the_end(name, later, tmp_path):
    seen = _run(tmp_path, lambda model: _scaled(model, {name: 0.1}, (1,)), later)
    assert over(seen)["qkv@1/weight_gap"] < -1.5
    assert "qkv@0/weight_gap" not in over(seen)


def test_weights_made_too_large_are_told(tmp_path):
    large = dict.fromkeys("qkv", 10.0)
    seen = _run(tmp_path, lambda model: _scaled(model, large, (1,)))
    assert seen["qkv@1/weight_gap"][-1] > 2.5 or seen["qkv@0/weight_gap"][-1] < -2.5


def test_what_trained_weights_began_with_is_not_known(tmp_path):
    seen = _run(tmp_path, grown, trained=True)
    assert over(seen) == {}
    assert np.isnan(seen["qkv@0/weight_gap"]).all()
    assert "began with trained weights" in seen.header.absent["qkv/weight_gap"]
