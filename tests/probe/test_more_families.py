"""Families nobody made a place for: no contract fires when healthy, padded on either side."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import transformers as hf
from family_grid import over
from family_models import train
from tiny_models import Seen
from torch import nn

pytestmark = pytest.mark.matrix

SIZES = {
    "vocab_size": 100, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4,
    "intermediate_size": 64, "max_position_embeddings": 64,
}  # fmt: skip
DECODER = SIZES | {
    "num_key_value_heads": 2, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0,
}  # fmt: skip
BART = {
    "vocab_size": 100, "d_model": 32, "encoder_layers": 2, "decoder_layers": 2,
    "encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64, "max_position_embeddings": 64, "bos_token_id": 0, "eos_token_id": 2,
    "pad_token_id": 1, "decoder_start_token_id": 2, "forced_eos_token_id": 2,
}  # fmt: skip
MODERN = SIZES | {
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1,
    "sep_token_id": 2, "local_attention": 8, "global_attn_every_n_layers": 2,
}  # fmt: skip
NEO = {
    "vocab_size": 100, "hidden_size": 32, "num_layers": 2, "num_heads": 4, "window_size": 8,
    "attention_types": [[["global", "local"], 1]], "max_position_embeddings": 64,
    "bos_token_id": 0, "eos_token_id": 0,
}  # fmt: skip
OPT = {
    "vocab_size": 100, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4,
    "ffn_dim": 64, "max_position_embeddings": 64, "word_embed_proj_dim": 32,
}  # fmt: skip
FALCON = {k: SIZES[k] for k in ("vocab_size", "hidden_size", "num_hidden_layers")}

MAKERS: dict[str, Callable[[], nn.Module]] = {
    "bart": lambda: hf.BartForConditionalGeneration(hf.BartConfig(**BART)),
    "opt": lambda: hf.OPTForCausalLM(hf.OPTConfig(**OPT)),
    "gpt_neox": lambda: hf.GPTNeoXForCausalLM(hf.GPTNeoXConfig(**SIZES)),
    "gpt_neo": lambda: hf.GPTNeoForCausalLM(hf.GPTNeoConfig(**NEO)),
    "electra": lambda: hf.ElectraForSequenceClassification(hf.ElectraConfig(**SIZES)),
    "albert": lambda: hf.AlbertForSequenceClassification(hf.AlbertConfig(**SIZES)),
    "modernbert": lambda: hf.ModernBertForSequenceClassification(hf.ModernBertConfig(**MODERN)),
    "deberta": lambda: hf.DebertaV2ForSequenceClassification(
        hf.DebertaV2Config(**SIZES, relative_attention=True, pos_att_type=["p2c", "c2p"])
    ),
    "gemma2": lambda: hf.Gemma2ForCausalLM(
        hf.Gemma2Config(**DECODER, head_dim=8, sliding_window=8, query_pre_attn_scalar=16)
    ),
    "gemma3": lambda: hf.Gemma3ForCausalLM(
        hf.Gemma3TextConfig(**DECODER, head_dim=8, sliding_window=8)
    ),
    "qwen2": lambda: hf.Qwen2ForCausalLM(hf.Qwen2Config(**DECODER)),
    "phi3": lambda: hf.Phi3ForCausalLM(hf.Phi3Config(**DECODER)),
    "olmo2": lambda: hf.Olmo2ForCausalLM(hf.Olmo2Config(**DECODER)),
    "bloom": lambda: hf.BloomForCausalLM(
        hf.BloomConfig(vocab_size=100, hidden_size=32, n_layer=3, n_head=4)
    ),
    "falcon": lambda: hf.FalconForCausalLM(hf.FalconConfig(**FALCON, num_attention_heads=4)),
    "mixtral": lambda: hf.MixtralForCausalLM(hf.MixtralConfig(**DECODER, num_local_experts=2)),
}


@pytest.mark.works_with("Model families")
@pytest.mark.parametrize("family", MAKERS)
@pytest.mark.parametrize("padding", ["left", "right"])
def test_nothing_fires(family, padding, tmp_path):
    torch.manual_seed(1)
    model = MAKERS[family]().train()
    shape = "bert" if "Sequence" in type(model).__name__ else "gpt2"
    train(model, "t5" if family == "bart" else shape, 4, trace=tmp_path / "t", padding=padding)
    seen = Seen(tmp_path / "t")
    assert not [r for r in seen.records if getattr(r, "kind", "") == "probe_off"]
    assert over(seen) == {}
