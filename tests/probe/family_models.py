"""Tiny models of every family the probe must understand, their batches, and a short training."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import tiny_models
import torch
import torch.nn.functional as F
import transformers as hf
from torch import nn

import probe

VOCABULARY = 100
LAYERS = 3
CLASSES = 2


class Attention(nn.Module):
    """Causal self-attention with one fused projection; SDPA, or softmax by hand."""

    def __init__(self, width: int, heads: int, dropout: float, by_hand: bool) -> None:
        super().__init__()
        self.c_attn = nn.Linear(width, 3 * width)
        self.c_proj = nn.Linear(width, width)
        self.attn_dropout = nn.Dropout(dropout)
        self.resid_dropout = nn.Dropout(dropout)
        self.heads, self.by_hand = heads, by_hand

    def forward(self, x):
        b, t, c = x.shape
        q, k, v = (
            part.view(b, t, self.heads, c // self.heads).transpose(1, 2)
            for part in self.c_attn(x).split(c, dim=2)
        )
        if self.by_hand:
            scores = (q @ k.transpose(-2, -1)) * (1.0 / math.sqrt(k.size(-1)))
            hidden = torch.ones(t, t, device=x.device).tril() == 0
            weights = F.softmax(scores.masked_fill(hidden, float("-inf")), dim=-1)
            y = self.attn_dropout(weights) @ v
        else:
            dropout = self.attn_dropout.p if self.training else 0.0
            y = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=True)
        return self.resid_dropout(self.c_proj(y.transpose(1, 2).contiguous().view(b, t, c)))


class FeedForward(nn.Module):
    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.c_fc = nn.Linear(width, 4 * width)
        self.gelu = nn.GELU()
        self.c_proj = nn.Linear(4 * width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x):
        return self.dropout(self.c_proj(self.gelu(self.c_fc(x))))


class Block(nn.Module):
    def __init__(self, width: int, heads: int, dropout: float, by_hand: bool) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width)
        self.attn = Attention(width, heads, dropout, by_hand)
        self.ln_2 = nn.LayerNorm(width)
        self.mlp = FeedForward(width, dropout)

    def forward(self, x):
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class HandWritten(nn.Module):
    """In the manner of nanoGPT: (idx, targets) -> (logits, loss)."""

    def __init__(self, dropout: float = 0.0, by_hand: bool = False) -> None:
        super().__init__()
        blocks = [Block(32, 4, dropout, by_hand) for _ in range(LAYERS)]
        self.transformer = nn.ModuleDict(
            {
                "wte": nn.Embedding(VOCABULARY, 32),
                "wpe": nn.Embedding(64, 32),
                "drop": nn.Dropout(dropout),
                "h": nn.ModuleList(blocks),
                "ln_f": nn.LayerNorm(32),
            }
        )
        self.lm_head = nn.Linear(32, VOCABULARY, bias=False)

    def forward(self, idx, targets=None):
        places = torch.arange(idx.shape[1], device=idx.device)
        x = self.transformer.drop(self.transformer.wte(idx) + self.transformer.wpe(places))
        for block in self.transformer.h:
            x = block(x)
        logits = self.lm_head(self.transformer.ln_f(x))
        loss = F.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), ignore_index=-100)
        return logits, loss


class TorchEncoder(nn.Module):
    """``nn.TransformerEncoder`` with a classifier on the first token."""

    def __init__(
        self, dropout: float = 0.0, batch_first: bool = True, norm_first: bool = False
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, 32)
        self.position = nn.Embedding(64, 32)
        layer = nn.TransformerEncoderLayer(
            32, 4, 64, dropout, batch_first=batch_first, norm_first=norm_first
        )
        final = nn.LayerNorm(32) if norm_first else None
        self.encoder = nn.TransformerEncoder(layer, LAYERS, final, enable_nested_tensor=False)
        self.classifier = nn.Linear(32, CLASSES)
        self.batch_first = batch_first

    def forward(self, src, padding_mask=None, labels=None):
        """``src`` (batch, n), or (n, batch) in torch's older order."""
        along = 1 if self.batch_first else 0
        places = torch.arange(src.shape[along], device=src.device)
        places = places if self.batch_first else places[:, None]
        x = self.embedding(src) + self.position(places)
        x = self.encoder(x, src_key_padding_mask=padding_mask)
        logits = self.classifier(x[:, 0] if self.batch_first else x[0])
        return logits, F.cross_entropy(logits.float(), labels)


class OwnAttention(nn.Module):
    """A hand-written block around ``nn.MultiheadAttention``, which returns its weights."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(32), nn.LayerNorm(32)
        self.attn = nn.MultiheadAttention(32, 4, dropout, batch_first=True)
        self.ff = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 32))

    def forward(self, x, hidden):
        y = self.norm1(x)
        x = x + self.attn(y, y, y, attn_mask=hidden)[0]
        return x + self.ff(self.norm2(x))


class MultiheadDecoder(nn.Module):
    """A causal model of such blocks."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.tok_emb = nn.Embedding(VOCABULARY, 32)
        self.pos_emb = nn.Embedding(64, 32)
        self.blocks = nn.ModuleList(OwnAttention(dropout) for _ in range(LAYERS))
        self.norm = nn.LayerNorm(32)
        self.head = nn.Linear(32, VOCABULARY)

    def forward(self, idx, targets=None):
        n = idx.shape[1]
        hidden = torch.ones(n, n, dtype=torch.bool, device=idx.device).triu(1)
        x = self.tok_emb(idx) + self.pos_emb(torch.arange(n, device=idx.device))
        for block in self.blocks:
            x = block(x, hidden)
        logits = self.head(self.norm(x))
        loss = F.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), ignore_index=-100)
        return logits, loss


_DECODER = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": LAYERS,
    "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 64,
    "max_position_embeddings": 64, "bos_token_id": 0, "eos_token_id": 0,
}  # fmt: skip
_BERT = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": LAYERS,
    "num_attention_heads": 4, "intermediate_size": 64, "max_position_embeddings": 66,
}  # fmt: skip


def _distilbert(p: float) -> nn.Module:
    return hf.DistilBertForSequenceClassification(
        hf.DistilBertConfig(
            vocab_size=VOCABULARY, dim=32, n_layers=LAYERS, n_heads=4, hidden_dim=64,
            max_position_embeddings=64, dropout=p, attention_dropout=p,
        )
    )  # fmt: skip


def _roberta(p: float) -> nn.Module:
    return hf.RobertaForSequenceClassification(
        hf.RobertaConfig(**_BERT, hidden_dropout_prob=p, attention_probs_dropout_prob=p)
    )


def _mistral(p: float) -> nn.Module:
    return hf.MistralForCausalLM(
        hf.MistralConfig(**_DECODER, sliding_window=8, attention_dropout=p)
    )


def _qwen3(p: float) -> nn.Module:
    return hf.Qwen3ForCausalLM(hf.Qwen3Config(**_DECODER, head_dim=16, attention_dropout=p))


def _t5(p: float) -> nn.Module:
    return hf.T5ForConditionalGeneration(
        hf.T5Config(
            vocab_size=VOCABULARY, d_model=32, d_kv=8, d_ff=64, num_layers=LAYERS,
            num_heads=4, dropout_rate=p, decoder_start_token_id=0,
        )
    )  # fmt: skip


_ADAPTED = {
    "bert": ["query", "key", "value", "dense"],
    "gpt2": ["c_attn", "c_proj", "c_fc"],
    "llama": "all-linear",
}


def with_lora(family: str, dropout: float = 0.0, **options: Any) -> nn.Module:
    """A core family with adapters on every projection, as PEFT puts them."""
    given = {"r": 4, "lora_alpha": 8, "target_modules": _ADAPTED[family], "lora_dropout": dropout}
    return peft.get_peft_model(
        tiny_models.make(family, dropout), peft.LoraConfig(**(given | options))
    )


MAKERS: dict[str, Callable[[float], nn.Module]] = {
    "bert": lambda p: tiny_models.make("bert", p),
    "gpt2": lambda p: tiny_models.make("gpt2", p),
    "llama": lambda p: tiny_models.make("llama", p),
    "distilbert": _distilbert,
    "roberta": _roberta,
    "mistral": _mistral,
    "qwen3": _qwen3,
    "t5": _t5,
    "torch encoder": TorchEncoder,
    "torch encoder, pre-norm, sequence first": lambda p: TorchEncoder(p, False, True),
    "multihead attention": MultiheadDecoder,
    "hand-written, SDPA": HandWritten,
    "hand-written, softmax": lambda p: HandWritten(p, by_hand=True),
    "bert, LoRA": lambda p: with_lora("bert", p),
    "gpt2, LoRA": lambda p: with_lora("gpt2", p),
    "llama, LoRA": lambda p: with_lora("llama", p),
}
FAMILIES = tuple(MAKERS)
CLASSIFIERS = ("bert", "bert, LoRA", "distilbert", "roberta", "torch encoder")
WITHOUT_MASK = ("multihead attention", "hand-written, SDPA", "hand-written, softmax")
PACKED = ("gpt2", "gpt2, LoRA", "llama", "llama, LoRA", "mistral", "qwen3")


def make(family: str, dropout: float = 0.0) -> nn.Module:
    """A tiny model with weights from a fixed seed, in training mode."""
    torch.manual_seed(1)
    return MAKERS[family](dropout).train()


def batch(family: str, padding: str = "right", packed: bool = False) -> dict[str, torch.Tensor]:
    """Random arguments of the model's forward. ``padding``: right, left or none."""
    size, length = 6, 28
    ids = torch.randint(5, VOCABULARY, (size, length))
    mask = torch.ones_like(ids)
    if padding == "right":
        mask[1, 12:] = mask[3, 20:] = 0
    elif padding == "left":
        mask[1, :16] = mask[3, :8] = 0
    ids[mask == 0] = 1 if family == "roberta" else 0
    classes = torch.randint(0, CLASSES, (size,))
    if family.startswith("torch encoder"):
        src = ids.t().contiguous() if family.endswith("sequence first") else ids
        return {"src": src, "padding_mask": mask == 0, "labels": classes}
    if family in WITHOUT_MASK:
        return {"idx": ids[:, :-1], "targets": ids[:, 1:].masked_fill(mask[:, 1:] == 0, -100)}
    if family in CLASSIFIERS:
        return {"input_ids": ids, "attention_mask": mask, "labels": classes}
    if family == "t5":
        answer = torch.randint(5, VOCABULARY, (size, 11))
        answer[2, 7:] = -100
        return {"input_ids": ids, "attention_mask": mask, "labels": answer}
    if packed:
        places = torch.arange(length) % 14
        return {"input_ids": ids, "position_ids": places.expand(size, -1).clone(), "labels": ids}
    given = {"input_ids": ids, "attention_mask": mask, "labels": ids.masked_fill(mask == 0, -100)}
    if padding == "left" and family.startswith("gpt2"):
        # Its positions count padding on the left, unless they are given.
        given["position_ids"] = (mask.cumsum(dim=1) - 1).clamp_min(0)
    return given


def loss_of(output: Any) -> torch.Tensor:
    return output[1] if isinstance(output, tuple) else output.loss


def train(
    model: nn.Module,
    family: str,
    steps: int,
    *,
    trace: Path | None = None,
    before: Callable[[int, torch.optim.Optimizer], Any] = lambda step, optimizer: None,
    padding: str = "right",
    packed: bool = False,
    autocast: bool = False,
    warm_up: int = 0,
    **attach: Any,
) -> list[float]:
    """Losses of a few steps; with ``trace`` the probe watches every one of them."""
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-3)
    torch.manual_seed(7)
    watching = None
    if trace is not None:
        options = {"endpoint": False, "every": 1, "budget": None, "trace": trace} | attach
        watching = probe.attach(model, optimizer, **options)
    losses = []
    for step in range(steps):
        before(step, optimizer)
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * (min(1.0, step / warm_up) if warm_up else 1.0)
        given = batch(family, padding, packed)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            loss = loss_of(model(**given, **({"use_cache": False} if packed else {})))
        loss.backward()
        losses.append(loss.item())
        optimizer.step()
        optimizer.zero_grad()
    if watching is not None:
        watching.close()
    return losses
