"""Queries that are scaled before the kernel, behind their rotation: positions and scale are told
apart."""

from __future__ import annotations

import pytest
import torch.nn.functional as F
from family_grid import over
from tiny_models import Seen, make, train
from transformers import AttentionInterface


def _scaled_first(module, query, key, value, attention_mask, scaling, **rest):
    """SDPA with its scale put on the rotated queries."""
    key, value = (t.repeat_interleave(2, dim=1) for t in (key, value))
    query = query * scaling * module.factor
    if not module.turned:
        query, key = module.plain
    causal = attention_mask is None and query.shape[2] > 1
    y = F.scaled_dot_product_attention(
        query, key, value, attn_mask=attention_mask, is_causal=causal, scale=1.0
    )
    return y.transpose(1, 2).contiguous(), None


def _run(tmp_path, factor: float = 1.0, turned: bool = True) -> Seen:
    AttentionInterface.register("scaled_first", _scaled_first)
    model = make("llama")
    model.set_attn_implementation("scaled_first")
    for at, layer in enumerate(model.model.layers):
        attention = layer.self_attn
        attention.factor = factor if at == 1 else 1.0
        attention.turned = turned or at != 1

        def keep(module, args, kwargs):
            b, n, _ = kwargs["hidden_states"].shape
            q, k = (
                w(kwargs["hidden_states"]).view(b, n, -1, 8).transpose(1, 2)
                for w in (module.q_proj, module.k_proj)
            )
            module.plain = q * module.scaling, k.repeat_interleave(2, dim=1)

        if not attention.turned:
            attention.register_forward_pre_hook(keep, with_kwargs=True)
    train(model, "llama", 4, attach={"trace": tmp_path / "t"})
    return Seen(tmp_path / "t")


def test_scaled_queries_are_rotated_all_the_same(tmp_path):
    seen = _run(tmp_path)
    assert over(seen) == {}
    assert seen["positional/rotation_error"].max() < 1e-5


def test_a_wrong_scale_is_told_as_such(tmp_path):
    seen = _run(tmp_path, factor=2.0)
    assert "score@1/scale_ratio" in over(seen)
    assert seen["score@1/scale_ratio"] == pytest.approx(1.0, abs=1e-3)
    assert "positional/rotation_error" not in over(seen)


def test_scaled_queries_that_are_not_rotated_still_show(tmp_path):
    fired = over(_run(tmp_path, turned=False))
    assert {"positional/rotation_error", "positional/missing"} <= set(fired)
    assert "score@1/scale_ratio" not in fired
