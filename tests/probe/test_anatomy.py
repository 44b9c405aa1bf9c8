from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from tiny_models import Seen, make, train
from torch import nn

from probe.anatomy import find, unwrap

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))


@pytest.mark.parametrize(
    ("family", "kind", "order", "positions", "kv_heads"),
    [
        ("bert", "encoder", "post", "learned", 4),
        ("gpt2", "decoder", "pre", "learned", 4),
        ("llama", "decoder", "pre", "rotary", 2),
    ],
)
def test_the_three_families_are_found(family, kind, order, positions, kv_heads, tmp_path):
    train(make(family), family, 2, attach={"trace": tmp_path / "t"})
    anatomy = Seen(tmp_path / "t").header.anatomy
    assert (anatomy.kind, anatomy.norm_order, anatomy.positions) == (kind, order, positions)
    assert (anatomy.layers, anatomy.heads, anatomy.kv_heads) == (3, 4, kv_heads)
    assert (anatomy.width, anatomy.head_dim, anatomy.vocabulary) == (32, 8, 100)
    names = {site.name for site in anatomy.sites}
    for layer in range(3):
        for node in ("qkv", "score", "mask", "attention", "residual_attention", "norm_attention",
                     "ffn", "residual_ffn", "norm_ffn"):  # fmt: skip
            assert f"{node}@{layer}" in names
    assert ("kv_cache@0" in names) == (kind == "decoder")
    assert ("norm_final" in names) == (order == "pre")
    where = anatomy.site("qkv@1").where
    assert f"modeling_{family}.py:" in where


def test_bert_parts_are_the_right_modules():
    model = make("bert")
    layer, block = find(model).layers[1], model.bert.encoder.layer[1]
    assert layer.attention is block.attention.self
    assert layer.attention_out is block.attention.output.dense
    assert layer.expand is block.intermediate.dense and layer.contract is block.output.dense


def test_gated_feed_forward_is_told_apart():
    model = make("llama")
    layer, block = find(model).layers[0], model.model.layers[0]
    assert (layer.gate, layer.expand, layer.contract) == (
        block.mlp.gate_proj, block.mlp.up_proj, block.mlp.down_proj,
    )  # fmt: skip


def test_a_hand_written_model_is_found_and_measured(tmp_path):
    from hand_written import Config, TinyGPT

    import probe

    model = TinyGPT(Config())
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    options = {"endpoint": False, "every": 1, "budget": None, "trace": tmp_path / "t"}
    with probe.attach(model, optimizer, **options) as p:
        for step in range(6):
            ids = torch.randint(0, 96, (4, 33))
            logits = model(ids[:, :-1])
            loss = nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            p.log(loss=loss, extra=step)
    seen = Seen(tmp_path / "t")
    assert seen.header.anatomy.layers == 3 and seen.header.anatomy.norm_order == "pre"
    assert seen["mask@1/future_mass"].max() == 0.0
    assert seen["attention@1/reference_error"].max() < 1e-5
    assert (seen["training/loss"] > 1.0).all()
    assert seen.fired() == set()


def test_a_model_without_blocks_is_still_watched(tmp_path):
    import probe

    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with probe.attach(model, optimizer, endpoint=False, trace=tmp_path / "t") as p:
        for _ in range(3):
            loss = model(torch.randn(8, 4)).square().mean()
            loss.backward()
            optimizer.step()
            p.log(loss=loss)
    from probe.trace import load

    assert type(load(tmp_path / "t")[-1]).__name__ == "End"


def test_wrappers_are_looked_through():
    inner = make("gpt2")

    class DistributedDataParallel(nn.Module):
        def __init__(self, module):
            super().__init__()
            self.module = module

    assert unwrap(DistributedDataParallel(inner)) is inner
    assert len(find(DistributedDataParallel(inner)).layers) == 3
