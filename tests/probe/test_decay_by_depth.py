"""Weight decay that differs from layer to layer, or within one."""

from __future__ import annotations

import pytest
import torch
from family_grid import over
from tiny_models import Seen, batch, make

import probe

DECAYS = (0.2, 0.05, 0.0)


def _run(trace, several: bool, odd: int | None = None) -> Seen:
    """GPT-2 with another decay in every layer. ``odd``: a layer whose feed-forward weights have
    one of their own."""
    model = make("gpt2")
    groups = [{"params": [], "weight_decay": decay} for decay in (*DECAYS, 0.7)]
    rest = []
    for name, parameter in model.named_parameters():
        layer = next((at for at in range(3) if f".h.{at}." in name), None)
        if parameter.dim() < 2 or layer is None:
            rest.append(parameter)
        else:
            groups[3 if layer == odd and "mlp" in name else layer]["params"].append(parameter)
    groups = [group for group in groups if group["params"]]
    groups.append({"params": rest, "weight_decay": 0.0})
    if several:
        optimizers = [torch.optim.AdamW([group], lr=1e-3) for group in groups]
    else:
        optimizers = [torch.optim.AdamW(groups, lr=1e-3)]
    with probe.attach(model, optimizers, endpoint=False, every=1, budget=None, trace=trace):
        for _ in range(3):
            model(**batch("gpt2")).loss.backward()
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()
    return Seen(trace)


@pytest.mark.parametrize("several", [False, True])
def test_decay_by_depth_is_meant(several, tmp_path):
    assert over(_run(tmp_path / "t", several)) == {}


@pytest.mark.parametrize("odd", [0, 2])
def test_another_decay_than_the_layers_own_is_told(odd, tmp_path):
    seen = _run(tmp_path / "t", False, odd)
    assert set(over(seen)) == {f"ffn@{odd}/decay_gap"}
    assert seen[f"ffn@{odd}/decay_gap"] == pytest.approx(0.7 - DECAYS[odd])


def test_without_other_matrices_in_the_layer_the_models_are_compared(tmp_path):
    model = make("gpt2")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(".attn." not in name)
    feed_forward = [p for n, p in model.named_parameters() if ".h.1.mlp" in n]
    held = {id(p) for p in feed_forward}
    rest = [p for p in model.parameters() if p.requires_grad and id(p) not in held]
    groups = [{"params": feed_forward, "weight_decay": 0.5}, {"params": rest, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-3)
    with probe.attach(model, optimizer, endpoint=False, every=1, budget=None, trace=tmp_path / "t"):
        for _ in range(3):
            model(**batch("gpt2")).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    assert set(over(Seen(tmp_path / "t"))) == {"ffn@1/decay_gap"}
