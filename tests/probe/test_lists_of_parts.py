"""Models without a module that is a block: attention and feed-forward parts in lists, called in
turn by the model itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from family_grid import over
from test_odd_models import HEADS, VOCABULARY, WIDTH, run
from torch import nn

from probe.inspection import inspect_model


class Attention(nn.Module):
    def __init__(self, normed: bool) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH) if normed else nn.Identity()
        self.to_qkv, self.to_out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.factor = 1.0

    def forward(self, x):
        b, n, _ = x.shape
        parts = self.to_qkv(self.norm(x)).chunk(3, dim=-1)
        q, k, v = (t.view(b, n, HEADS, -1).transpose(1, 2) for t in parts)
        y = F.scaled_dot_product_attention(q * self.factor, k, v, is_causal=True)
        return self.to_out(y.transpose(1, 2).reshape(b, n, -1))


class FeedForward(nn.Module):
    def __init__(self, normed: bool) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.LayerNorm(WIDTH) if normed else nn.Identity(),
            nn.Linear(WIDTH, 3 * WIDTH),
            nn.GELU(),
            nn.Dropout(0.1),
            nn.Linear(3 * WIDTH, WIDTH),
        )

    def forward(self, x):
        return self.net(x)


class Lists(nn.Module):
    """``how``: ``two`` lists, one of ``pairs``, or lists of ``norms`` as well."""

    def __init__(self, how: str, count: int = 3) -> None:
        super().__init__()
        self.tok, self.pos = nn.Embedding(VOCABULARY, WIDTH), nn.Embedding(40, WIDTH)
        self.how, inside = how, how != "norms"
        attentions = [Attention(inside) for _ in range(count)]
        feeding = [FeedForward(inside) for _ in range(count)]
        if how == "pairs":
            self.layers = nn.ModuleList(map(nn.ModuleList, zip(attentions, feeding, strict=True)))
        else:
            self.attns, self.ffns = nn.ModuleList(attentions), nn.ModuleList(feeding)
        if how == "norms":
            self.norms1, self.norms2 = (
                nn.ModuleList(nn.LayerNorm(WIDTH) for _ in range(count)) for _ in range(2)
            )
        self.last, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, VOCABULARY)

    def forward(self, idx):
        x = self.tok(idx) + self.pos(torch.arange(idx.shape[1]))
        if self.how == "norms":
            lists = self.attns, self.ffns, self.norms1, self.norms2
            for attend, feed, one, two in zip(*lists, strict=True):
                x = x + attend(one(x))
                x = x + feed(two(x))
        else:
            pairs = self.layers if self.how == "pairs" else zip(self.attns, self.ffns, strict=True)
            for attend, feed in pairs:
                x = x + attend(x)
                x = x + feed(x)
        return self.head(self.last(x))


@pytest.mark.parametrize("how", ["two", "pairs", "norms"])
def test_layers_are_found_in_lists(how, tmp_path):
    torch.manual_seed(2)
    seen = run(Lists(how), tmp_path / "t")
    anatomy = seen.header.anatomy
    assert anatomy.layers == 3 and anatomy.norm_order == "pre"
    assert over(seen) == {}
    for key in (
        "qkv@1/q_error", "score@2/scale_ratio", "mask@0/future_mass", "attention@1/reaches_output",
        "ffn@0/linear_error", "ffn@2/activation_error", "norm_attention@1/formula_error",
        "norm_ffn@1/formula_error", "norm_final/formula_error", "ffn@1/unmoved",
    ):  # fmt: skip
        assert not np.isnan(seen[key]).any(), key
    place = {"two": "attns.1", "pairs": "layers.1.0", "norms": "attns.1"}[how]
    assert f"{place}.to_qkv" in anatomy.site("qkv@1").modules
    assert np.isnan(seen["residual_ffn@1/sum_error"]).all()
    assert "no module" in seen.header.absent["residual_ffn/sum_error"]
    assert "no module" in seen.header.absent["drift/cka"]


def test_doctor_shows_what_was_put_together():
    torch.manual_seed(2)
    found = inspect_model(Lists("norms"), {"idx": torch.randint(0, VOCABULARY, (4, 24))})
    assert found.roles["blocks"] == "attns.* + ffns.* + norms1.* + norms2.*"
    assert found.roles["fused"] == "attns.*.to_qkv"


def test_a_fault_in_a_list_is_told_at_its_layer(tmp_path):
    torch.manual_seed(2)
    model = Lists("two")
    model.attns[1].factor = 2.0
    assert "score@1/scale_ratio" in over(run(model, tmp_path / "t"))


def test_lists_of_another_length_are_no_pairs(tmp_path):
    """A list of adapters beside the attentions, say."""
    torch.manual_seed(2)
    model = Lists("pairs")
    model.ffns = nn.ModuleList(FeedForward(True) for _ in range(2))
    for unused in model.ffns.parameters():
        unused.requires_grad_(False)
    assert over(run(model, tmp_path / "t")) == {}
