"""What configs of transformers state beside the usual is read: healthy training shows nothing."""

from __future__ import annotations

import pytest
import torch
import transformers
from family_grid import over
from tiny_models import Seen

import probe

VOCABULARY, WIDTH, SIDE = 90, 32, 16
SIZES = {
    "vocab_size": VOCABULARY, "hidden_size": WIDTH, "d_model": WIDTH, "n_embd": WIDTH,
    "embedding_size": WIDTH, "intermediate_size": 64, "num_hidden_layers": 4, "n_layer": 4,
    "num_attention_heads": 4, "n_head": 4, "num_key_value_heads": 2, "head_dim": 8,
    "max_position_embeddings": 40, "n_positions": 40, "image_size": SIDE, "patch_size": 4,
    "encoder_layers": 2, "decoder_layers": 2, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64,
    "encoder_attention_heads": 4, "decoder_attention_heads": 4, "num_experts": 4,
    "num_local_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "sliding_window": 8, "rotary_dim": 4,
}  # fmt: skip


def made(kind: str, head: str, **stated) -> torch.nn.Module:
    """A small model with weights drawn as its family draws them."""
    torch.manual_seed(1)
    kind_of = transformers.CONFIG_MAPPING[kind]
    known = set(kind_of().to_dict()) | set(kind_of.attribute_map)
    config = kind_of(**{k: v for k, v in SIZES.items() if k in known} | stated)
    return getattr(transformers, f"AutoModelFor{head}").from_config(config).train()


def watched(model: torch.nn.Module, tmp_path, broken=lambda: None) -> Seen:
    """The trace of steps so large that what begins at zero does not stay there; ``broken`` is
    called when the probe has read the model."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    images = "ImageClassification" in type(model).__name__
    with probe.attach(model, optimizer, endpoint=False, every=1, budget=None, trace=tmp_path / "t"):
        broken()
        for _ in range(8):
            if images:
                labels = torch.randint(0, model.config.num_labels, (8,))
                given = {"pixel_values": torch.randn(8, 3, SIDE, SIDE), "labels": labels}
            else:
                ids = torch.randint(5, VOCABULARY, (8, 20))
                given = {"input_ids": ids, "labels": ids, "attention_mask": torch.ones_like(ids)}
            model(**given).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    return Seen(tmp_path / "t")


DESIGNS = {
    "beit": ("ImageClassification", {"drop_path_rate": 0.3}),  # gains are the block's own
    "biogpt": ("CausalLM", {}),  # no norm is given the epsilon
    "cohere": ("CausalLM", {}),  # pairs beside each other are turned, logits are scaled
    "cohere2": ("CausalLM", {}),  # every fourth layer turns nothing
    "deberta": ("MaskedLM", {}),  # biases of queries and values of their own
    "dinov2": ("ImageClassification", {"drop_path_rate": 0.3, "layerscale_value": 0.1}),
    "esm": ("MaskedLM", {}),  # a bias beside the head
    "gemma2": ("CausalLM", {"final_logit_softcapping": 2.0}),
    "gptj": ("CausalLM", {}),  # a part of each head is turned
    "granite": (
        "CausalLM",
        {"attention_multiplier": 0.2, "residual_multiplier": 0.3, "logits_scaling": 8.0},
    ),
    "m2m_100": ("Seq2SeqLM", {"activation_dropout": 0.3}),
    "persimmon": ("CausalLM", {}),  # a squared activation
    "qwen3_next": ("CausalLM", {}),  # heads are gated, by the same projection as the queries
    "roformer": ("MaskedLM", {}),  # a table that turns heads
    "seed_oss": ("CausalLM", {"residual_dropout": 0.2}),  # the rate under a name of its own
}
PLAIN = {
    "CausalLM": (
        "arcee", "ernie4_5", "exaone4", "gemma", "glm", "glm4", "gpt_bigcode", "gpt_oss",
        "granitemoe", "helium", "mpt", "olmo", "olmoe", "phi", "smollm3", "stablelm",
        "starcoder2", "xglm",
    ),
    "MaskedLM": (
        "camembert", "megatron-bert", "mpnet", "nomic_bert", "rembert", "squeezebert",
        "xlm-roberta",
    ),
    "ImageClassification": ("data2vec-vision", "dinov2_with_registers", "ijepa"),
}  # fmt: skip
DESIGNS |= {family: (head, {}) for head, families in PLAIN.items() for family in families}


@pytest.mark.works_with("Model families")
@pytest.mark.parametrize("family", DESIGNS)
def test_nothing_fires(family, tmp_path):
    head, stated = DESIGNS[family]
    seen = watched(made(family, head, **stated), tmp_path)
    assert len(seen.frames) == 8
    assert over(seen) == {}


def test_other_factors_than_stated_are_told(tmp_path):
    model = made("granite", "CausalLM", residual_multiplier=0.3, logits_scaling=8.0)

    def broken():
        model.model.layers[1].residual_multiplier = 0.6
        model.config.logits_scaling = 4.0

    fired = over(watched(model, tmp_path, broken))
    assert fired["residual_ffn@1/branch_gain"] == pytest.approx(1.0, abs=1e-2)
    assert fired["residual_attention@1/branch_gain"] == pytest.approx(1.0, abs=1e-2)
    assert fired["output/head_gain"] == pytest.approx(1.0, abs=1e-3)


def test_a_branch_left_out_for_examples_is_told_where_no_config_states_it(tmp_path):
    model = made("vit", "ImageClassification", hidden_dropout_prob=0.0)
    layers = next(m for m in model.modules() if isinstance(m, torch.nn.ModuleList))
    for layer in layers:
        mlp = next(m for n, m in layer.named_modules() if n.endswith(("fc2", "output.dense")))
        mlp.register_forward_hook(
            lambda module, args, out: out * (torch.rand(len(out), 1, 1) > 0.5) * 2.0
        )
    assert any("residual_ffn" in key for key in over(watched(model, tmp_path)))
