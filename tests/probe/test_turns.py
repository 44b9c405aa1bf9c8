"""Blocks that run several times in a forward: layers where they are chained, else one of each."""

from __future__ import annotations

import pytest
import torch
from family_grid import over
from family_models import HandWritten
from tiny_models import Seen
from torch import nn
from written_models import Titan, loss_of

import probe


class Looped(HandWritten):
    """All its layers are one block."""

    def __init__(self, times: int = 3) -> None:
        super().__init__()
        self.times = times
        self.transformer.h = nn.ModuleList([self.transformer.h[0]])

    def forward(self, idx, targets=None):
        places = torch.arange(idx.shape[1], device=idx.device)
        x = self.transformer.wte(idx) + self.transformer.wpe(places)
        for _ in range(self.times):
            x = self.transformer.h[0](x)
        logits = self.lm_head(self.transformer.ln_f(x))
        return logits, loss_of(logits, targets)


class Twice(Titan):
    """One model that encodes two inputs."""

    def forward(self, idx, targets):
        first, second = super().forward(idx), super().forward(idx.flip(1))
        return first, loss_of(first, targets) + second.square().mean()


def run(model: nn.Module, trace) -> Seen:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    torch.manual_seed(7)
    options = {"endpoint": False, "every": 1, "budget": None, "trace": trace}
    with probe.attach(model, optimizer, **options):
        for _ in range(4):
            ids = torch.randint(0, 100, (4, 21))
            model(ids[:, :-1], ids[:, 1:])[1].backward()
            optimizer.step()
            optimizer.zero_grad()
    return Seen(trace)


@pytest.fixture
def looped():
    torch.manual_seed(1)
    return Looped().train()


def test_every_call_of_a_shared_block_is_a_layer(looped, tmp_path):
    seen = run(looped, tmp_path / "t")
    names = {site.name for site in seen.header.anatomy.sites}
    assert seen.header.anatomy.layers == 3 and {"mask@0", "mask@2", "drift@2"} <= names
    assert over(seen) == {}
    assert seen["qkv@2/q_norm"].tolist() != seen["qkv@1/q_norm"].tolist()
    assert (seen["attention@1/kernel_calls"] == seen["attention@0/kernel_calls"]).all()


def test_a_fault_in_one_call_is_seen_at_its_layer(looped, tmp_path):
    calls = 0

    def change(module, args, out):
        nonlocal calls
        calls += 1
        return out * 1.3 if calls % 3 == 2 else out

    handle = looped.transformer.h[0].attn.c_attn.register_forward_hook(change)
    seen = run(looped, tmp_path / "t")
    handle.remove()
    assert {key.partition("/")[0] for key in over(seen) if "_error" in key} == {"qkv@1"}


def test_two_inputs_do_not_make_twice_the_layers(tmp_path):
    torch.manual_seed(1)
    seen = run(Twice().train(), tmp_path / "t")
    assert seen.header.anatomy.layers == 3 and over(seen) == {}


def test_a_number_of_loops_that_changes(looped, tmp_path):
    looped.times = 2
    torch.manual_seed(7)
    optimizer = torch.optim.AdamW(looped.parameters(), lr=1e-3)
    options = {"endpoint": False, "every": 1, "budget": None, "trace": tmp_path / "t"}
    with probe.attach(looped, optimizer, **options):
        for times in (2, 3, 1, 2):
            looped.times = times
            ids = torch.randint(0, 100, (4, 21))
            looped(ids[:, :-1], ids[:, 1:])[1].backward()
            optimizer.step()
            optimizer.zero_grad()
    seen = Seen(tmp_path / "t")
    assert len(seen.frames) == 4 and over(seen) == {}
    assert not [r.text for r in seen.records if getattr(r, "kind", "") == "probe_off"]
    known = ~torch.isnan(torch.tensor(seen["qkv@1/v_error"]))
    assert known.tolist() == [True, True, False, True]
