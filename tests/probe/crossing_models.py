"""Tiny models with cross-attention, and batches with padding on both sides."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import more_models
import torch
import torch.nn.functional as F
import transformers as hf
from torch import nn

WIDTH, HEADS, VOCABULARY, LAYERS = 32, 4, 100, 2
SOURCE, TARGET, SIZE = 24, 11, 6


class Captioner(nn.Module):
    """Torch's own decoder over the output of its own encoder, or over features of another size."""

    def __init__(self, p: float, norm_first: bool = False, encoded: bool = True) -> None:
        super().__init__()
        self.source, self.target = nn.Embedding(VOCABULARY, WIDTH), nn.Embedding(VOCABULARY, WIDTH)
        options = {"batch_first": True, "norm_first": norm_first}
        if encoded:
            layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 64, p, **options)
            final = nn.LayerNorm(WIDTH) if norm_first else None
            self.encoder = nn.TransformerEncoder(layer, LAYERS, final, enable_nested_tensor=False)
        self.features = nn.Conv1d(WIDTH, WIDTH, 2, stride=2) if not encoded else None
        layer = nn.TransformerDecoderLayer(WIDTH, HEADS, 64, p, **options)
        self.decoder = nn.TransformerDecoder(layer, LAYERS, nn.LayerNorm(WIDTH))
        self.head = nn.Linear(WIDTH, VOCABULARY)

    def forward(self, src, tgt, src_key_padding_mask=None):
        memory, hidden = self.source(src), src_key_padding_mask
        if self.features is not None:
            memory, hidden = self.features(memory.transpose(1, 2)).transpose(1, 2), None
        else:
            memory = self.encoder(memory, src_key_padding_mask=hidden)
        n = tgt.shape[1]
        ahead = torch.ones(n, n, dtype=torch.bool, device=tgt.device).triu(1)
        options = {"tgt_mask": ahead, "memory_key_padding_mask": hidden}
        return self.head(self.decoder(self.target(tgt), memory, **options))


class Attention(nn.Module):
    """Over its own states or others', by a kernel or by hand."""

    def __init__(self, p: float, by_hand: bool) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(3))
        self.proj, self.drop = nn.Linear(WIDTH, WIDTH), nn.Dropout(p)
        self.by_hand = by_hand

    def forward(self, x, states, shown):
        q, k, v = (
            t.unflatten(-1, (HEADS, -1)).transpose(1, 2)
            for t in (self.q(x), self.k(states), self.v(states))
        )
        if self.by_hand:
            scores = q @ k.transpose(-2, -1) / math.sqrt(k.shape[-1])
            scores = scores.masked_fill(~shown, float("-inf"))
            out = self.drop(scores.softmax(-1)) @ v
        else:
            rate = self.drop.p if self.training else 0.0
            out = F.scaled_dot_product_attention(q, k, v, shown, rate)
        return self.proj(out.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Written with the attention over other states first, under names that tell nothing."""

    def __init__(self, p: float, crossed: bool, by_hand: bool) -> None:
        super().__init__()
        self.one = Attention(p, by_hand) if crossed else None
        self.norm_one = nn.LayerNorm(WIDTH) if crossed else None
        self.two, self.norm_two = Attention(p, by_hand), nn.LayerNorm(WIDTH)
        self.norm_three = nn.LayerNorm(WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 64), nn.Linear(64, WIDTH)

    def forward(self, x, shown, memory=None, memory_shown=None):
        y = self.norm_two(x)
        x = x + self.two(y, y, shown)
        if self.one is not None:
            x = x + self.one(self.norm_one(x), memory, memory_shown)
        return x + self.down(F.gelu(self.up(self.norm_three(x))))


class Translator(nn.Module):
    """Hand-written encoder and decoder."""

    def __init__(self, p: float, by_hand: bool) -> None:
        super().__init__()
        self.table, self.place = nn.Embedding(VOCABULARY, WIDTH), nn.Embedding(64, WIDTH)
        self.reading = nn.ModuleList(Block(p, False, by_hand) for _ in range(LAYERS))
        self.writing = nn.ModuleList(Block(p, True, by_hand) for _ in range(LAYERS))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, VOCABULARY)

    def forward(self, src, tgt, padding_mask):
        shown = padding_mask[:, None, None, :] != 0
        states = self.table(src) + self.place.weight[: src.shape[1]]
        for block in self.reading:
            states = block(states, shown)
        n = tgt.shape[1]
        behind = torch.ones(n, n, dtype=torch.bool, device=tgt.device).tril()
        x = self.table(tgt) + self.place.weight[:n]
        for block in self.writing:
            x = block(x, behind, states, shown)
        return self.head(self.norm(x))


def _bert(p: float, decodes: bool) -> hf.BertConfig:
    return hf.BertConfig(
        vocab_size=VOCABULARY, hidden_size=WIDTH, num_hidden_layers=LAYERS, intermediate_size=64,
        num_attention_heads=HEADS, max_position_embeddings=64, hidden_dropout_prob=p,
        attention_probs_dropout_prob=p, is_decoder=decodes, add_cross_attention=decodes,
    )  # fmt: skip


def _two(p: float, decoder: Any) -> nn.Module:
    config = hf.EncoderDecoderConfig.from_encoder_decoder_configs(_bert(p, False), decoder)
    config.decoder_start_token_id, config.pad_token_id = 1, 0
    return hf.EncoderDecoderModel(config)


def _gpt2(p: float) -> hf.GPT2Config:
    return hf.GPT2Config(
        vocab_size=VOCABULARY, n_embd=WIDTH, n_layer=LAYERS, n_head=HEADS, n_positions=64,
        resid_pdrop=p, attn_pdrop=p, embd_pdrop=p, bos_token_id=0, eos_token_id=0,
        add_cross_attention=True,
    )  # fmt: skip


def _t5(p: float) -> nn.Module:
    return hf.T5ForConditionalGeneration(
        hf.T5Config(
            vocab_size=VOCABULARY, d_model=WIDTH, d_kv=8, d_ff=64, num_layers=LAYERS,
            num_heads=HEADS, dropout_rate=p, decoder_start_token_id=0,
        )
    )  # fmt: skip


def _small(config: dict[str, Any], p: float) -> dict[str, Any]:
    rates = {"dropout": p, "attention_dropout": p, "activation_dropout": 0.0}
    return config | {"encoder_layers": LAYERS, "decoder_layers": LAYERS} | rates


MAKERS: dict[str, Callable[[float], nn.Module]] = {
    "t5": _t5,
    "bart": lambda p: hf.BartForConditionalGeneration(hf.BartConfig(**_small(more_models.BART, p))),
    "whisper": lambda p: hf.WhisperForConditionalGeneration(
        hf.WhisperConfig(**_small(more_models.WHISPER, p))
    ),
    "torch decoder": Captioner,
    "torch decoder, pre-norm": lambda p: Captioner(p, norm_first=True),
    "torch decoder over features": lambda p: Captioner(p, encoded=False),
    "hand-written, SDPA": lambda p: Translator(p, by_hand=False),
    "hand-written, softmax": lambda p: Translator(p, by_hand=True),
    "bert and bert": lambda p: _two(p, _bert(p, True)),
    "bert and gpt2": lambda p: _two(p, _gpt2(p)),
}
FAMILIES = tuple(MAKERS)
HUGGING_FACE = ("t5", "bart", "bert and bert", "bert and gpt2")


def make(family: str, dropout: float = 0.0) -> nn.Module:
    """With weights from a fixed seed, in training mode."""
    torch.manual_seed(1)
    return MAKERS[family](dropout).train()


def batch(family: str, padding: str = "right", same_length: bool = False) -> dict[str, Any]:
    """Random arguments of the model's forward. ``padding``: of the source, right, left or none."""
    answer = torch.randint(5, VOCABULARY, (SIZE, SOURCE if same_length else TARGET))
    if family == "whisper":
        return {"input_features": torch.randn(SIZE, 8, 40), "labels": answer}
    ids = torch.randint(5, VOCABULARY, (SIZE, SOURCE))
    mask = torch.ones_like(ids)
    for row, real in ((1, 9), (3, 17)):
        if padding == "right":
            mask[row, real:] = 0
        elif padding == "left":
            mask[row, : SOURCE - real] = 0
    ids[mask == 0] = 0
    if family in HUGGING_FACE:
        answer[2, 7:] = -100
        return {"input_ids": ids, "attention_mask": mask, "labels": answer}
    if family.startswith("torch"):
        return {"src": ids, "tgt": answer, "src_key_padding_mask": mask == 0}
    return {"src": ids, "tgt": answer, "padding_mask": mask}


def loss_of(model: nn.Module, given: dict[str, Any]) -> torch.Tensor:
    """The model's own loss, or that of predicting each target token from those before."""
    out = model(**given)
    if isinstance(out, torch.Tensor):
        flat = out[:, :-1].float().flatten(0, 1)
        return F.cross_entropy(flat, given["tgt"][:, 1:].flatten())
    return out.loss
