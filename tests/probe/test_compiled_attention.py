"""Attention in a function compiled by itself, as flex attention is: no graph added, none traced."""

from __future__ import annotations

import pytest
import torch
import torch._dynamo
import torch.nn.functional as F
import transformers as hf
from family_grid import over
from more_models import DECODER, GPT_LIKE
from test_more_families import run
from tiny_models import Seen
from torch import nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from written_models import SIZE, Titan, loss_of

import probe
from probe.compiled import calls_compiled


class Counting:
    """A backend that counts the graphs it is given and runs them as they are."""

    def __init__(self) -> None:
        self.graphs = 0

    def __call__(self, graph, inputs):
        self.graphs += 1
        return graph.forward


def _causal(q, k, v):
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


counting = Counting()
compiled = torch.compile(_causal, backend=counting)


class ByGlobal(nn.Module):
    """Calls a compiled function of its file."""

    def __init__(self) -> None:
        super().__init__()
        self.wq, self.wk, self.wv, self.wo = (nn.Linear(32, 32) for _ in range(4))

    def attend(self, q, k, v):
        return compiled(q, k, v)

    def forward(self, x, freqs_cis):
        b, s, _ = x.shape
        q, k, v = (w(x).view(b, s, -1, SIZE).transpose(1, 2) for w in (self.wq, self.wk, self.wv))
        return self.wo(self.attend(q, k, v).transpose(1, 2).reshape(b, s, -1))


class ByClass(ByGlobal):
    """Keeps it on its class."""

    kernel = staticmethod(compiled)

    def attend(self, q, k, v):
        return self.kernel(q, k, v)


def _graphs(kind: type[nn.Module], trace=None) -> int:
    torch._dynamo.reset()
    counting.graphs = 0
    torch.manual_seed(1)
    model = Titan()
    for block in model.layers.values():
        block.attention = kind()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    options = {"endpoint": False, "every": 2, "budget": None, "trace": trace}
    watching = probe.attach(model, optimizer, **options) if trace else None
    for _ in range(4):
        ids = torch.randint(0, 100, (4, 20))
        loss_of(model(ids[:, :-1]), ids[:, 1:]).backward()
        optimizer.step()
        optimizer.zero_grad()
    if watching is not None:
        watching.close()
    return counting.graphs


@pytest.mark.parametrize("kind", [ByGlobal, ByClass])
def test_no_graph_is_added_and_the_reason_is_told(kind, tmp_path):
    assert _graphs(kind, tmp_path / "t") == _graphs(kind) > 0
    seen = Seen(tmp_path / "t")
    assert "compiled by itself" in seen.header.absent["mask/hidden"]
    assert seen["norm_ffn@1/formula_error"].max() < 1e-5 and over(seen) == {}


@pytest.mark.works_with("Forms of a model", "flex attention (its rows, masks, scores are not read)")
def test_of_flex_attention_the_reason_is_told_and_the_rest_is_read(monkeypatch, tmp_path):
    """Its backward needs another device than a CPU: here another kernel stands in for it."""

    def stand_in(module, query, key, value, attention_mask, **kwargs):
        key, value = (t.repeat_interleave(2, dim=1) for t in (key, value))
        out = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        return out.transpose(1, 2), None

    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS, "flex_attention", stand_in)
    torch.manual_seed(1)
    config = hf.LlamaConfig(**DECODER, attn_implementation="flex_attention")
    seen = run(hf.LlamaForCausalLM(config).train(), GPT_LIKE, tmp_path / "t")
    for key in ("mask/hidden", "score/scale_ratio", "attention/entropy", "qkv/q_error"):
        assert "flex attention" in seen.header.absent[key], key
    for key in ("norm_ffn@1/formula_error", "residual_attention@1/sum_error"):
        assert seen[key].max() < 1e-5
    assert over(seen) == {}


def test_only_what_is_compiled_is_left_alone():
    assert calls_compiled(ByGlobal()) and calls_compiled(ByClass())
    assert not calls_compiled(Titan().layers["0"].attention)
    plain = hf.LlamaForCausalLM(hf.LlamaConfig(**DECODER))
    assert not calls_compiled(plain.model.layers[0].self_attn)
