"""Designs of hand-written models that no config states: they do not fire, faults beside them do."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from family_grid import over
from tiny_models import Seen
from torch import nn

import probe
from probe.anatomy import find

WIDTH, HEADS, VOCABULARY, LENGTH = 32, 4, 60, 24


def normed(x):
    return F.rms_norm(x, (x.shape[-1],))


def turned(x):
    """Rotary positions, pairs half a head apart."""
    n, size = x.shape[-2:]
    angles = torch.outer(torch.arange(n), 100.0 ** -(torch.arange(size // 2) / (size // 2)))
    one, two = x.chunk(2, -1)
    return torch.cat(
        [one * angles.cos() - two * angles.sin(), one * angles.sin() + two * angles.cos()], -1
    )


class Attention(nn.Module):
    """``norm``: of queries and keys; ``cap``: of the scores; ``causal``: hides later tokens."""

    def __init__(self, norm=None, names=None, cap=None, causal=True, begun_at_zero=False):
        super().__init__()
        self.query, self.key, self.value, self.proj = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        for name in names or ():
            self.add_module(name, nn.RMSNorm(WIDTH // HEADS, eps=1e-6))
            nn.init.uniform_(self.get_submodule(name).weight, 0.5, 2.0)
        self.norms = [self.get_submodule(name) for name in names] if names else [norm, norm]
        self.cap, self.causal = cap, causal
        if begun_at_zero:
            nn.init.zeros_(self.proj.weight)

    def forward(self, x):
        b, n, _ = x.shape
        q, k, v = (
            w(x).view(b, n, HEADS, -1).transpose(1, 2) for w in (self.query, self.key, self.value)
        )
        q, k = (f(t) if f else t for f, t in zip(self.norms, (q, k), strict=True))
        scores = q @ k.transpose(-2, -1) * (WIDTH // HEADS) ** -0.5
        if self.cap:
            scores = self.cap * torch.tanh(scores / self.cap)
        if self.causal:
            scores = scores.masked_fill(torch.ones(n, n).triu(1).bool(), float("-inf"))
        return self.proj((scores.softmax(-1) @ v).transpose(1, 2).reshape(b, n, WIDTH))


class Gain(nn.Module):
    """A factor per channel, as vision transformers put on their branches."""

    def __init__(self, value):
        super().__init__()
        self.gamma = nn.Parameter(torch.full((WIDTH,), value))

    def forward(self, x):
        return x * self.gamma


class Block(nn.Module):
    """``drop``: share of examples whose branch is left out; ``gain``: per channel, of the block
    (``own``) or a module; ``modulator``: a linear more, beside the two of the feed-forward part."""

    def __init__(self, drop=0.0, gain=None, own=False, modulator="", begun_at_zero=False, **rest):
        super().__init__()
        if modulator == "first":
            self.shift = nn.Linear(WIDTH, 6 * WIDTH)
        self.n1, self.n2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.attn = Attention(begun_at_zero=begun_at_zero, **rest)
        self.ff1, self.ff2 = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)
        if modulator == "last":
            self.shift = nn.Linear(WIDTH, 6 * WIDTH)
        if begun_at_zero:
            nn.init.zeros_(self.ff2.weight)
        self.gains = [None, None]
        if gain and own:
            self.lambda_1, self.lambda_2 = (
                nn.Parameter(gain * torch.ones(WIDTH)) for _ in range(2)
            )
            self.gains = [lambda x: x * self.lambda_1, lambda x: x * self.lambda_2]
        elif gain:
            self.ls1, self.ls2 = Gain(gain), Gain(gain)
            self.gains = [self.ls1, self.ls2]
        self.drop, self.activation = drop, F.gelu

    def left_out(self, x):
        if not self.training or not self.drop:
            return x
        return x * (torch.rand(len(x), 1, 1) >= self.drop) / (1.0 - self.drop)

    def forward(self, x):
        branches = (
            lambda x: self.attn(self.n1(x)),
            lambda x: self.ff2(self.activation(self.ff1(self.n2(x)))),
        )
        for gain, branch in zip(self.gains, branches, strict=True):
            y = branch(x)
            x = x + self.left_out(gain(y) if gain else y)
        return x


class Model(nn.Module):
    def __init__(self, finish=lambda logits: logits, **block):
        super().__init__()
        self.tok, self.pos = nn.Embedding(VOCABULARY, WIDTH), nn.Embedding(LENGTH, WIDTH)
        self.blocks = nn.ModuleList(Block(**block) for _ in range(3))
        self.last, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, VOCABULARY)
        self.finish = finish

    def forward(self, idx, targets=None):
        x = self.tok(idx) + self.pos(torch.arange(idx.shape[1]))
        for block in self.blocks:
            x = block(x)
        logits = self.finish(self.head(self.last(x)))
        if targets is None:
            return logits
        return logits, F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-1)


def watched(model, tmp_path, told=False, hidden=0, steps=6):
    """The trace of a few steps. ``told``: the labels go through the model; those of the first
    ``hidden`` tokens are left out."""
    torch.manual_seed(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    trace = tmp_path / "t"
    with probe.attach(model, optimizer, endpoint=False, every=1, budget=None, trace=trace):
        for _ in range(steps):
            ids = torch.randint(0, VOCABULARY, (16, LENGTH + 1))
            idx, targets = ids[:, :-1], ids[:, 1:].clone()
            targets[:, :hidden] = -1
            if told:
                loss = model(idx, targets)[1]
            else:
                loss = F.cross_entropy(model(idx).flatten(0, 1), targets.flatten())
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    return Seen(trace)


WAYS = {
    "stochastic depth": {"drop": 0.3},
    "stochastic depth at a small rate": {"drop": 0.1},
    "layer scale": {"gain": 1e-2},
    "layer scale by parameters of the block": {"gain": 0.1, "own": True},
    "layer scale and stochastic depth": {"gain": 0.1, "own": True, "drop": 0.3},
    "QK norm without weights": {"norm": normed},
    "QK norm to length one": {"norm": functools.partial(F.normalize, dim=-1)},
    "QK norm under other names": {"names": ("qn", "kn")},
    "QK norm, RMS": {"names": ("q_rmsnorm", "k_rmsnorm")},
    "rotary positions": {"norm": turned},
    "rotary positions and QK norm": {"norm": lambda x: turned(normed(x))},
    "soft cap on the scores": {"cap": 20.0},
    "projections begun at zero": {"begun_at_zero": True},
    "modulation (adaLN) before the feed-forward part": {"modulator": "first"},
    "modulation (adaLN) behind it": {"modulator": "last"},
    "soft cap on the logits": {"finish": lambda logits: 3.0 * torch.tanh(logits / 3.0)},
    "scale on the logits": {"finish": lambda logits: 0.5 * logits + 1.0},
}


@pytest.mark.works_with("Designs of hand-written models")
@pytest.mark.parametrize("way", WAYS)
def test_nothing_fires(way, tmp_path):
    torch.manual_seed(1)
    assert over(watched(Model(**WAYS[way]), tmp_path)) == {}


def test_branches_that_begin_at_zero_do_not_stay_there(tmp_path):
    seen = watched(Model(begun_at_zero=True), tmp_path)
    assert seen["ffn@1/out_weight"][0] == 0 < seen["ffn@1/out_weight"][1]
    assert (seen["ffn@1/constant_weights"] == 0).all()
    assert seen["ffn@1/zero_neurons"][0] == 0


def test_a_squared_relu_silences_neurons(tmp_path):
    model = Model()
    for block in model.blocks:
        block.activation = lambda x: F.relu(x).square()
    seen = watched(model, tmp_path)
    assert np.isnan(seen["ffn@1/dead_neurons"]).all()


@pytest.mark.parametrize("where", ["first", "last"])
def test_the_pair_is_found_beside_other_linears(where):
    model = Model(modulator=where)
    for layer in find(model).layers:
        assert (layer.expand, layer.contract) == (layer.block.ff1, layer.block.ff2)


def test_a_grown_branch_is_told_where_no_example_is_left_out(tmp_path):
    model = Model()
    model.blocks[1].left_out = lambda x: 1.4 * x
    seen = watched(model, tmp_path)
    assert {"residual_ffn@1/branch_gain", "residual_attention@1/branch_gain"} <= set(over(seen))


def test_a_stream_that_loses_its_input_is_told_where_examples_are_left_out(tmp_path):
    model = Model(drop=0.3)
    block = model.blocks[1]

    def forward(x):
        x = x + block.left_out(block.attn(block.n1(x)))
        return 0.5 * x + block.left_out(block.ff2(F.gelu(block.ff1(block.n2(x)))))

    block.forward = forward
    assert "residual_ffn@1/sum_error" in over(watched(model, tmp_path))


def test_coarse_scores_are_told_though_they_are_capped(tmp_path):
    model = Model(cap=20.0)
    model.blocks[1].attn.norms = [lambda q: q, lambda k: k.to(torch.float16).float() * 1.2]
    fired = over(watched(model, tmp_path))
    assert {"score@1/scale_ratio", "qkv@1/k_error"} & set(fired)


def test_weights_that_stay_at_zero_are_told(tmp_path):
    model = Model(begun_at_zero=True)
    for block in model.blocks:
        block.ff2.weight.requires_grad_(False)
    assert "ffn@0/constant_weights" in over(watched(model, tmp_path))


def test_a_wrong_head_is_told_whatever_becomes_of_its_logits(tmp_path):
    model = Model(finish=lambda logits: 3.0 * logits)
    model.head.register_forward_hook(lambda module, args, out: 2.0 * out)
    assert "output/head_error" in over(watched(model, tmp_path))


def test_labels_one_token_on_say_that_later_tokens_are_not_to_be_seen(tmp_path):
    fired = over(watched(Model(causal=False), tmp_path, told=True))
    assert {"mask@0/leaked", "mask@2/leaked", "mask@1/future_mass"} <= set(fired)
    assert over(watched(Model(), tmp_path, told=True)) == {}


def test_what_has_no_label_may_be_seen_whole(tmp_path):
    assert over(watched(Model(causal=False), tmp_path, told=True, hidden=8)) == {}
