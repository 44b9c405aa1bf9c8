from __future__ import annotations

import numpy as np
import pytest
import torch
from family_grid import over
from family_models import LAYERS, make, train
from tiny_models import Seen
from torch import nn

import probe
from probe.overrides import AnatomyError, find_with


class Odd(nn.Module):
    """A block whose names say nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(16, 32), nn.Linear(32, 16)
        self.mix = nn.Module()
        self.mix.alpha, self.mix.beta = nn.Linear(16, 16), nn.Linear(16, 16)
        self.mix.gamma, self.mix.delta = nn.Linear(16, 16), nn.Linear(16, 16)


class OddModel(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(50, 16)
        self.stages = nn.ModuleList(Odd() for _ in range(2))
        self.extra = nn.Linear(16, 50)


def test_roles_of_blocks_and_of_the_model_are_taken_as_given():
    model = OddModel()
    given = {
        "attention": "mix", "query": "mix.alpha", "key": "mix.beta", "value": "mix.gamma",
        "attention_out": "mix.delta", "expand": "one", "contract": "two", "head": "extra",
        "blocks": "stages", "position_embedding": None,
    }  # fmt: skip
    parts = find_with(model, given)
    layer, block = parts.layers[1], model.stages[1]
    assert layer.attention is block.mix and layer.query is block.mix.alpha
    assert layer.attention_out is block.mix.delta
    assert (layer.expand, layer.contract, layer.ffn) == (block.one, block.two, block)
    assert parts.head is model.extra and "head" in parts.fixed


def test_an_attention_named_by_hand_brings_its_projections():
    model = make("gpt2")
    layer = find_with(model, {"attention": "attn"}).layers[0]
    assert layer.fused is model.transformer.h[0].attn.c_attn and layer.query is None
    packed = find_with(make("torch encoder"), {"attention": "self_attn"}).layers[0]
    assert packed.packed is packed.attention


def test_one_stack_of_two_can_be_meant():
    model = make("t5")
    parts = find_with(model, {"decoder.ffn_dropout": None, "norm_final": None})
    encoder, decoder = (stack.layers for stack in parts.stacks)
    assert encoder[0].ffn_dropout is not None and decoder[0].ffn_dropout is None


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"nonsense": "h"}, "is no role; the roles are: blocks"),
        ({"decoder.expand": "mlp.c_fc"}, "is no role"),
        ({"head": "lm_haed"}, "the model has no module 'lm_haed'; it has: transformer"),
        ({"expand": "mlp.fc"}, r"block transformer.h.0 has no module 'mlp.fc'; it has: ln_1"),
        ({"expand": "ln_1"}, "'ln_1' is a LayerNorm, not a linear"),
        ({"token_embedding": "lm_head"}, "is a Linear, not an embedding"),
        ({"blocks": "lm_head"}, "holds no blocks"),
    ],
)
def test_what_does_not_exist_is_refused_before_anything_starts(given, said):
    model = make("gpt2")
    optimizer = torch.optim.AdamW(model.parameters())
    with pytest.raises(ValueError, match=said) as raised:
        probe.attach(model, optimizer, endpoint=False, trace=False, anatomy=given)
    assert isinstance(raised.value, AnatomyError)
    assert not model._forward_hooks and not optimizer._optimizer_step_post_hooks


def test_a_part_given_as_none_is_not_measured_and_the_rest_is(tmp_path):
    train(make("gpt2"), "gpt2", 3, trace=tmp_path / "t", anatomy={"norm_ffn": None, "head": None})
    seen = Seen(tmp_path / "t")
    names = {site.name for site in seen.header.anatomy.sites}
    assert "norm_ffn@0" not in names and f"ffn@{LAYERS - 1}" in names
    assert seen.header.absent["output/head_error"] == "no output head was found"
    assert over(seen) == {}


def test_a_part_named_rightly_changes_no_value(tmp_path):
    given = {
        "attention": "attn", "fused": "attn.c_attn", "attention_out": "attn.c_proj",
        "expand": "mlp.c_fc", "contract": "mlp.c_proj", "head": "lm_head",
        "norm_attention": "ln_1", "norm_ffn": "ln_2",
    }  # fmt: skip
    runs = []
    for name, anatomy in (("found", None), ("given", given)):
        train(make("gpt2"), "gpt2", 3, trace=tmp_path / name, anatomy=anatomy)
        runs.append(Seen(tmp_path / name))
    found, named = runs
    assert found.header.columns == named.header.columns
    for column in found.header.columns:
        if column.metric not in ("step_time", "memory"):
            assert np.array_equal(found[column.key], named[column.key], equal_nan=True)
