"""Layers with fewer heads than the config states, because some were pruned."""

from __future__ import annotations

import pytest
from family_grid import over
from tiny_models import Seen, make, train
from torch import nn

SIZE = 8


def _narrow(linear: nn.Module, rows: list[int] | None, columns: list[int] | None) -> nn.Linear:
    weight, bias = linear.weight.data, linear.bias.data
    weight, bias = (weight[rows], bias[rows]) if rows is not None else (weight, bias)
    weight = weight[:, columns] if columns is not None else weight
    made = nn.Linear(weight.shape[1], weight.shape[0])
    made.weight.data, made.bias.data = weight.clone(), bias.clone()
    return made


def _run(tmp_path, pruned: dict[int, list[int]], by_module: bool = True) -> Seen:
    """BERT of four heads, whose layers keep only those in ``pruned``."""
    model = make("bert")
    for at, heads in pruned.items():
        block = model.bert.encoder.layer[at].attention
        kept = [head * SIZE + place for head in heads for place in range(SIZE)]
        for name in ("query", "key", "value"):
            setattr(block.self, name, _narrow(getattr(block.self, name), kept, None))
        block.output.dense = _narrow(block.output.dense, None, kept)
        if by_module:
            block.self.num_attention_heads, block.self.all_head_size = len(heads), len(kept)
    train(model, "bert", 3, attach={"trace": tmp_path / "t"})
    return Seen(tmp_path / "t")


@pytest.mark.parametrize("pruned", [{1: [0, 2, 3]}, {0: [3], 1: [0, 2], 2: [1, 2]}])
def test_pruned_heads_are_meant(pruned, tmp_path):
    seen = _run(tmp_path, pruned)
    assert over(seen) == {}
    assert (seen["qkv@1/head_count"] == 0).all()


def test_fewer_heads_than_both_config_and_module_say_are_told(tmp_path):
    assert "qkv@1/head_count" in over(_run(tmp_path, {1: [0, 2, 3]}, by_module=False))


def test_heads_split_otherwise_are_told(tmp_path):
    model = make("bert")
    own = model.bert.encoder.layer[1].attention.self
    own.num_attention_heads, own.attention_head_size = 2, 2 * SIZE
    train(model, "bert", 3, attach={"trace": tmp_path / "t"})
    assert "qkv@1/head_count" in over(Seen(tmp_path / "t"))
