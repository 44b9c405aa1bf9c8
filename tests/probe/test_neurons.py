"""Neurons that are silent, alike or cut off, and healthy ones that only look like it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_models import Seen, make, train
from torch import nn
from transformers import BartConfig, BartForConditionalGeneration

import probe
from probe.measure.ffn import equal_neurons


def seen_of(model: nn.Module, family: str, trace: Path) -> Seen:
    train(model, family, 3, attach={"trace": trace})
    return Seen(trace)


def test_a_saturated_neuron_is_not_dead(tmp_path):
    model = make("bert")
    model.bert.encoder.layer[1].intermediate.dense.bias.data[:6] = -30.0
    seen = seen_of(model, "bert", tmp_path / "saturated")
    assert seen["ffn@1/dead_neurons"].max() == 0.0


def test_a_neuron_silenced_behind_its_activation_is_dead(tmp_path):
    model = make("bert")
    active = model.bert.encoder.layer[1].intermediate
    keep = torch.ones(64)
    keep[:6] = 0.0
    active.register_forward_hook(lambda module, args, out: out * keep)
    seen = seen_of(model, "bert", tmp_path / "silenced")
    assert seen["ffn@1/dead_neurons"].tolist() == pytest.approx([6 / 64] * 3)


@pytest.mark.parametrize("family", ["bert", "gpt2", "llama"])
def test_nothing_is_told_of_healthy_neurons(family, tmp_path):
    seen = seen_of(make(family), family, tmp_path / "healthy")
    for layer in range(3):
        for metric in ("equal_neurons", "zero_neurons", "dead_neurons"):
            assert seen[f"ffn@{layer}/{metric}"].max() == 0.0


def test_tokens_that_are_alike_do_not_make_neurons_equal():
    generator = torch.Generator().manual_seed(0)
    shared = torch.randn(1, 1, 512, generator=generator)
    own = torch.randn(2, 12, 512, generator=generator)
    assert equal_neurons(shared + 1e-4 * own) == 0.0
    copied = (shared + 1e-4 * own)[..., torch.arange(512) % 256]
    assert equal_neurons(copied) == 1.0
    assert equal_neurons(own[:1, :4]) is None


def test_copies_and_neurons_without_a_way_out_are_told(tmp_path):
    model = make("gpt2", dropout=0.0)
    mlp = model.transformer.h[1].mlp
    mlp.c_fc.weight.data[:, 64:] = mlp.c_fc.weight.data[:, :64]
    mlp.c_proj.weight.data[:32] = 0.0
    seen = seen_of(model, "gpt2", tmp_path / "copies")
    assert seen["ffn@1/equal_neurons"][0] == 1.0
    assert seen["ffn@1/zero_neurons"][0] == pytest.approx(32 / 128)
    assert seen["ffn@0/equal_neurons"].max() == 0.0


def test_an_untied_encoder_decoder_is_watched_at_the_table_that_runs(tmp_path):
    torch.manual_seed(3)
    model = BartForConditionalGeneration(
        BartConfig(
            vocab_size=64, d_model=32, encoder_layers=2, decoder_layers=2,
            encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=64,
            decoder_ffn_dim=64, max_position_embeddings=40, tie_word_embeddings=False,
        )
    )  # fmt: skip
    optimizer = torch.optim.SGD(model.parameters(), 1e-2)
    trace = tmp_path / "bart"
    with probe.attach(model, optimizer, endpoint=False, trace=trace, every=1, budget=None):
        for _ in range(3):
            asked, answered = torch.randint(3, 30, (4, 12)), torch.randint(30, 64, (4, 9))
            model(input_ids=asked, labels=answered).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    seen = Seen(trace)
    site = seen.header.anatomy.site("embedding")
    assert site is not None and site.modules == ("model.encoder.embed_tokens",)
    assert seen["embedding/unmoved"].max() == 0.0
