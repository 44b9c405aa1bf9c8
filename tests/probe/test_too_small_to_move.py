"""A step too small for float32 is no weight that stands still; a weight that is put back is."""

from __future__ import annotations

from pathlib import Path

import torch
from tiny_models import Seen, make, train


def unmoved(trace: Path, rate: float, undo: bool = False) -> float:
    """Largest share of a layer's query, key and value parameters that SGD left as they were."""
    model = make("gpt2", dropout=0.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    weight = model.transformer.h[1].attn.c_attn.weight
    kept = weight.detach().clone()

    def put_back(*_: object) -> None:
        with torch.no_grad():
            weight.copy_(kept)

    if undo:
        optimizer.register_step_post_hook(put_back)
    train(model, "gpt2", 3, optimizer=optimizer, attach={"trace": trace})
    return float(Seen(trace)["qkv@1/unmoved"].max())


def test_updates_that_float32_cannot_hold_are_not_missed(tmp_path):
    assert unmoved(tmp_path / "tiny", rate=1e-12) == 0.0


def test_a_weight_that_is_put_back_after_every_step_has_not_moved(tmp_path):
    assert unmoved(tmp_path / "back", rate=0.1, undo=True) > 0.0
    assert unmoved(tmp_path / "free", rate=0.1) == 0.0
