"""Tiny models of further families, and their batches: what people train beside the core ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import family_models
import torch
import transformers as hf
import written_models
from torch import nn

SIZES = {
    "vocab_size": 100, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4,
    "intermediate_size": 64, "max_position_embeddings": 64,
}  # fmt: skip
DECODER = SIZES | {
    "num_key_value_heads": 2, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0,
}  # fmt: skip
BART = {
    "vocab_size": 100, "d_model": 32, "encoder_layers": 3, "decoder_layers": 3,
    "encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64, "max_position_embeddings": 64, "bos_token_id": 0, "eos_token_id": 2,
    "pad_token_id": 1, "decoder_start_token_id": 2, "forced_eos_token_id": 2,
}  # fmt: skip
WHISPER = {k: v for k, v in BART.items() if not k.startswith(("max", "forced"))} | {
    "num_mel_bins": 8, "max_source_positions": 20, "max_target_positions": 32,
    "suppress_tokens": None, "begin_suppress_tokens": None,
}  # fmt: skip
MODERN = SIZES | {
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1,
    "sep_token_id": 2, "local_attention": 8, "global_attn_every_n_layers": 2,
}  # fmt: skip
NEO = {
    "vocab_size": 100, "hidden_size": 32, "num_layers": 3, "num_heads": 4, "window_size": 8,
    "attention_types": [[["global", "local", "global"], 1]], "max_position_embeddings": 64,
    "bos_token_id": 0, "eos_token_id": 0,
}  # fmt: skip
OPT = {
    "vocab_size": 100, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4,
    "ffn_dim": 64, "max_position_embeddings": 64, "word_embed_proj_dim": 32,
}  # fmt: skip
FALCON = {k: SIZES[k] for k in ("vocab_size", "hidden_size", "num_hidden_layers")}
VISION = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4,
    "image_size": 16, "patch_size": 4,
}  # fmt: skip
IMAGE = 99
"""The token in whose place a patch stands."""


@dataclass(frozen=True)
class Family:
    """How a model and its batches are made. ``stacks``: names of its stacks."""

    make: Callable[[], nn.Module]
    batch: Callable[[], dict[str, Any]]
    stacks: tuple[str, ...] = ("",)
    packed: str = ""
    """A stack that works on rows packed into one, which are not taken apart: it is not read."""
    order: str = "pre"
    parallel: bool = False
    """Both branches of a block read the same stream: the sums are not read."""


def _text(shape: str, padding: str = "right") -> dict[str, torch.Tensor]:
    return family_models.batch(shape, padding)


def _images(classes: int = 3) -> dict[str, torch.Tensor]:
    return {"pixel_values": torch.randn(6, 3, 16, 16), "labels": torch.randint(0, classes, (6,))}


def _sound() -> dict[str, torch.Tensor]:
    return {"input_features": torch.randn(6, 8, 40), "labels": torch.randint(3, 99, (6, 12))}


def _images_and_text() -> dict[str, torch.Tensor]:
    ids = torch.randint(5, IMAGE, (4, 30))
    ids[:, 2:18] = IMAGE
    mask = torch.ones_like(ids)
    mask[1, 24:] = 0
    labels = ids.masked_fill((mask == 0) | (ids == IMAGE), -100)
    pixels = torch.randn(4, 3, 16, 16)
    return {"input_ids": ids, "attention_mask": mask, "labels": labels, "pixel_values": pixels}


def _llava() -> nn.Module:
    vision, text = hf.CLIPVisionConfig(**VISION), hf.LlamaConfig(**DECODER)
    return hf.LlavaForConditionalGeneration(
        hf.LlavaConfig(
            vision_config=vision, text_config=text, image_token_index=IMAGE, vision_feature_layer=-1
        )
    )


def _qwen_vl() -> nn.Module:
    vision = {
        "depth": 3, "embed_dim": 32, "hidden_size": 32, "num_heads": 4, "patch_size": 4,
        "in_channels": 3, "spatial_merge_size": 2, "temporal_patch_size": 2, "mlp_ratio": 2,
    }  # fmt: skip
    rotary = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]}
    config = hf.Qwen2VLConfig(
        text_config=DECODER | {"rope_parameters": rotary}, vision_config=vision,
        image_token_id=IMAGE, vision_start_token_id=98, vision_end_token_id=97, video_token_id=96,
    )  # fmt: skip
    return hf.Qwen2VLForConditionalGeneration(config)


def _patches_and_text() -> dict[str, torch.Tensor]:
    ids = torch.randint(5, 90, (2, 20))
    ids[:, 2], ids[:, 3:7] = 98, IMAGE
    return {
        "input_ids": ids, "labels": ids.clone(), "attention_mask": torch.ones_like(ids),
        "pixel_values": torch.randn(2 * 16, 96), "image_grid_thw": torch.tensor([[1, 4, 4]] * 2),
        "mm_token_type_ids": (ids == IMAGE).int(),
    }  # fmt: skip


def _written(named: str = "idx") -> dict[str, torch.Tensor]:
    ids = torch.randint(0, 100, (6, 29))
    if named == "tokens":
        return {"tokens": ids[:, :-1], "targets": ids[:, 1:]}
    return {"idx": ids[:, :-1], "targets": ids[:, 1:]}


def _deberta() -> nn.Module:
    config = hf.DebertaV2Config(
        **SIZES, relative_attention=True, pos_att_type=["p2c", "c2p"], type_vocab_size=0
    )
    return hf.DebertaV2ForSequenceClassification(config)


def _gemma2() -> nn.Module:
    return hf.Gemma2ForCausalLM(
        hf.Gemma2Config(**DECODER, head_dim=8, sliding_window=8, query_pre_attn_scalar=16)
    )


def _gemma3() -> nn.Module:
    config = hf.Gemma3TextConfig(
        **DECODER, head_dim=8, sliding_window=8,
        layer_types=["sliding_attention", "full_attention", "sliding_attention"],
    )  # fmt: skip
    return hf.Gemma3ForCausalLM(config)


BERT_LIKE, GPT_LIKE, T5_LIKE = (partial(_text, name) for name in ("bert", "gpt2", "t5"))
CODED = ("encoder", "decoder")

MORE: dict[str, Family] = {
    "electra": Family(
        lambda: hf.ElectraForSequenceClassification(hf.ElectraConfig(**SIZES)), BERT_LIKE,
        order="post",
    ),
    "albert": Family(
        lambda: hf.AlbertForSequenceClassification(hf.AlbertConfig(**SIZES, embedding_size=16)),
        BERT_LIKE, order="post",
    ),
    "deberta": Family(_deberta, BERT_LIKE, order="post"),
    "modernbert": Family(
        lambda: hf.ModernBertForSequenceClassification(hf.ModernBertConfig(**MODERN)), BERT_LIKE
    ),
    "vit": Family(
        lambda: hf.ViTForImageClassification(hf.ViTConfig(**VISION, num_labels=3)), _images
    ),
    "gpt_neo": Family(lambda: hf.GPTNeoForCausalLM(hf.GPTNeoConfig(**NEO)), GPT_LIKE),
    "gpt_neox": Family(
        lambda: hf.GPTNeoXForCausalLM(hf.GPTNeoXConfig(**SIZES)), GPT_LIKE, parallel=True
    ),
    "opt": Family(lambda: hf.OPTForCausalLM(hf.OPTConfig(**OPT)), GPT_LIKE),
    "bloom": Family(
        lambda: hf.BloomForCausalLM(
            hf.BloomConfig(vocab_size=100, hidden_size=32, n_layer=3, n_head=4)
        ),
        GPT_LIKE,
    ),
    "falcon": Family(
        lambda: hf.FalconForCausalLM(hf.FalconConfig(**FALCON, num_attention_heads=4)), GPT_LIKE,
        order="unknown", parallel=True,
    ),
    "qwen2": Family(lambda: hf.Qwen2ForCausalLM(hf.Qwen2Config(**DECODER)), GPT_LIKE),
    "gemma2": Family(_gemma2, GPT_LIKE),
    "gemma3": Family(_gemma3, GPT_LIKE),
    "phi3": Family(lambda: hf.Phi3ForCausalLM(hf.Phi3Config(**DECODER)), GPT_LIKE),
    "olmo2": Family(lambda: hf.Olmo2ForCausalLM(hf.Olmo2Config(**DECODER)), GPT_LIKE, order="post"),
    "mixtral": Family(
        lambda: hf.MixtralForCausalLM(hf.MixtralConfig(**DECODER, num_local_experts=2)), GPT_LIKE
    ),
    "bart": Family(
        lambda: hf.BartForConditionalGeneration(hf.BartConfig(**BART)), T5_LIKE, CODED, order="post"
    ),
    "whisper": Family(
        lambda: hf.WhisperForConditionalGeneration(hf.WhisperConfig(**WHISPER)), _sound, CODED
    ),
    "llava": Family(_llava, _images_and_text, ("vision", "")),
    "qwen2_vl": Family(_qwen_vl, _patches_and_text, ("vision", ""), "vision"),
    "minGPT": Family(written_models.MinGPT, _written),
    "torchtune": Family(written_models.Tune, partial(_written, "tokens")),
    "torchtitan": Family(written_models.Titan, partial(_written, "tokens")),
}  # fmt: skip


def make(family: str) -> nn.Module:
    """A tiny model with weights from a fixed seed, in training mode."""
    torch.manual_seed(1)
    return MORE[family].make().train()


def step(model: nn.Module, given: dict[str, Any]) -> torch.Tensor:
    """The loss of one forward: the model's own, or made here of the logits it returns."""
    targets = given.pop("targets") if "tokens" in given else None
    out = model(**given)
    if targets is not None:
        return written_models.loss_of(out, targets)
    return out[1] if isinstance(out, tuple) else out.loss
