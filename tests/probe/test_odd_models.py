"""Healthy hand-written models built in ways of their own: nothing fires, and the rest is read."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from family_grid import over
from tiny_models import Seen
from torch import nn

import probe

WIDTH, HEADS, VOCABULARY = 32, 4, 60


class Head(nn.Module):
    """One head, its softmax by hand."""

    def __init__(self) -> None:
        super().__init__()
        size = WIDTH // HEADS
        self.key, self.query, self.value = (nn.Linear(WIDTH, size, bias=False) for _ in range(3))

    def forward(self, x):
        n = x.shape[1]
        scores = self.query(x) @ self.key(x).transpose(-2, -1) * (WIDTH // HEADS) ** -0.5
        scores = scores.masked_fill(torch.ones(n, n).triu(1).bool(), float("-inf"))
        return F.softmax(scores, dim=-1) @ self.value(x)


class PerHead(nn.Module):
    """Every head a module of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = nn.ModuleList(Head() for _ in range(HEADS))
        self.proj = nn.Linear(WIDTH, WIDTH)

    def forward(self, x):
        return self.proj(torch.cat([head(x) for head in self.heads], dim=-1))


class Interleaved(nn.Module):
    """One projection that holds [heads, 3, head_dim]; dropout called as a function."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.out = nn.Linear(WIDTH, WIDTH)

    def forward(self, x):
        b, n, _ = x.shape
        q, k, v = self.qkv(x).view(b, n, HEADS, 3, -1).permute(3, 0, 2, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        y = self.out(y.transpose(1, 2).reshape(b, n, -1))
        return F.dropout(y, 0.1, self.training)


class Rotated(nn.Module):
    """Rotary positions in interleaved pairs, keys shared by two heads."""

    def __init__(self) -> None:
        super().__init__()
        self.wq, self.wo = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.wk, self.wv = nn.Linear(WIDTH, WIDTH // 2), nn.Linear(WIDTH, WIDTH // 2)

    def forward(self, x):
        b, n, _ = x.shape
        size = WIDTH // HEADS
        q, k, v = (w(x).view(b, n, -1, size).transpose(1, 2) for w in (self.wq, self.wk, self.wv))
        angles = torch.outer(torch.arange(n), 100.0 ** -(torch.arange(0, size, 2) / size))
        turn = torch.polar(torch.ones_like(angles), angles)
        q, k = (
            torch.view_as_real(torch.view_as_complex(t.float().unflatten(-1, (-1, 2))) * turn)
            .flatten(-2)
            .to(t.dtype)
            for t in (q, k)
        )
        k, v = (t.repeat_interleave(2, dim=1) for t in (k, v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.wo(y.transpose(1, 2).reshape(b, n, -1))


class RMSNorm(nn.Module):
    """Under the name that LayerNorm has elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(WIDTH)), 1e-6

    def forward(self, x):
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps) * self.weight


class LayerNorm(RMSNorm):
    """A misleading name."""


class Block(nn.Module):
    def __init__(self, attention: type[nn.Module], inline: bool) -> None:
        super().__init__()
        self.n1, self.n2 = LayerNorm(), LayerNorm()
        self.attn, self.inline = attention(), inline
        self.ff1, self.ff2 = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)

    def forward(self, x):
        x = x + self.attn(self.n1(x))
        y = self.ff2(F.relu(self.ff1(self.n2(x))).square())
        return x + (F.dropout(y, 0.2, self.training) if self.inline else y)


class Model(nn.Module):
    """Token vectors times the root of the width, as in the first transformer."""

    def __init__(self, attention: type[nn.Module], inline: bool = False) -> None:
        super().__init__()
        self.tok, self.pos = nn.Embedding(VOCABULARY, WIDTH), nn.Embedding(40, WIDTH)
        self.blocks = nn.ModuleList(Block(attention, inline) for _ in range(3))
        self.last = LayerNorm()
        self.head = nn.Linear(WIDTH, VOCABULARY)

    def forward(self, idx):
        x = self.tok(idx) * WIDTH**0.5 + self.pos(torch.arange(idx.shape[1]))
        for block in self.blocks:
            x = block(x)
        return self.head(self.last(x))


def run(model: nn.Module, trace, dtype: torch.dtype = torch.float32) -> Seen:
    model = model.to(dtype)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    with probe.attach(model, optimizer, endpoint=False, every=1, budget=None, trace=trace) as p:
        for _ in range(5):
            ids = torch.randint(0, VOCABULARY, (4, 25))
            logits = model(ids[:, :-1]).float()
            loss = F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            p.log(loss=loss)
    return Seen(trace)


@pytest.mark.parametrize("attention", [PerHead, Interleaved, Rotated])
@pytest.mark.parametrize("inline", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_nothing_fires(attention, inline, dtype, tmp_path):
    torch.manual_seed(2)
    seen = run(Model(attention, inline), tmp_path / "t", dtype)
    assert seen.header.anatomy.layers == 3 and seen.header.anatomy.norm_order == "pre"
    assert over(seen) == {}
    assert (seen["norm_ffn@1/formula_error"] < (1e-5 if dtype == torch.float32 else 0.01)).all()
    assert (seen["residual_ffn@1/sum_error"] < (1e-5 if dtype == torch.float32 else 0.01)).all()
    assert np.isnan(seen["residual_ffn@1/branch_gain"]).any() == inline or dtype != torch.float32


def test_heads_in_modules_of_their_own_are_not_taken_for_layers(tmp_path):
    seen = run(Model(PerHead), tmp_path / "t")
    absent = seen.header.absent
    assert "a module of its own" in absent["mask/leaked"]
    assert "a module of its own" in absent["attention/kernel_calls"]
    layer = seen.header.anatomy.site("ffn@1")
    assert layer is not None and "blocks.1.ff1" in layer.modules


def test_projections_are_read_in_the_order_the_kernel_shows(tmp_path):
    seen = run(Model(Interleaved), tmp_path / "t")
    for name in ("q_error", "k_error", "v_error"):
        assert seen[f"qkv@2/{name}"].max() < 1e-5
    assert abs(seen["score@2/scale_ratio"]).max() < 1e-4
    assert seen["positional/missing"].max() == 0.0


class Table(nn.Embedding):
    """Positions whose rows the model reads by itself."""

    def forward(self, places):
        raise AssertionError("not called")


class ReadByItself(Model):
    def __init__(self, adds: bool) -> None:
        super().__init__(Interleaved)
        self.pos, self.adds = Table(40, WIDTH), adds

    def forward(self, idx):
        x = self.tok(idx) * WIDTH**0.5
        x = x + self.pos.weight[: idx.shape[1]] if self.adds else x
        for block in self.blocks:
            x = block(x)
        return self.head(self.last(x))


@pytest.mark.parametrize("adds", [True, False])
def test_positions_that_are_added_without_a_call_are_not_missing(adds, tmp_path):
    torch.manual_seed(2)
    seen = run(ReadByItself(adds), tmp_path / "t")
    assert seen["positional/missing"].tolist() == [float(not adds)] * 5
    assert set(over(seen)) == (set() if adds else {"positional/missing", "positional/unmoved"})
