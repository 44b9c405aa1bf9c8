"""Models in the manner of well-known training code: minGPT, torchtune, torchtitan."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

WIDTH, HEADS, KV_HEADS, VOCABULARY, LAYERS, LENGTH = 32, 4, 2, 100, 3, 28
SIZE = WIDTH // HEADS


def loss_of(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), ignore_index=-100)


class NewGELU(nn.Module):
    def forward(self, x):
        inner = math.sqrt(2.0 / math.pi) * (x + 0.044715 * torch.pow(x, 3.0))
        return 0.5 * x * (1.0 + torch.tanh(inner))


class MinAttention(nn.Module):
    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.c_attn, self.c_proj = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.attn_dropout, self.resid_dropout = nn.Dropout(dropout), nn.Dropout(dropout)
        self.register_buffer("bias", torch.tril(torch.ones(64, 64)).view(1, 1, 64, 64))

    def forward(self, x):
        b, t, c = x.size()
        q, k, v = (
            part.view(b, t, HEADS, SIZE).transpose(1, 2) for part in self.c_attn(x).split(c, dim=2)
        )
        att = (q @ k.transpose(-2, -1)) * (1.0 / math.sqrt(k.size(-1)))
        att = att.masked_fill(self.bias[:, :, :t, :t] == 0, float("-inf"))
        y = self.attn_dropout(F.softmax(att, dim=-1)) @ v
        return self.resid_dropout(self.c_proj(y.transpose(1, 2).contiguous().view(b, t, c)))


class MinBlock(nn.Module):
    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.ln_1, self.attn = nn.LayerNorm(WIDTH), MinAttention(dropout)
        self.ln_2 = nn.LayerNorm(WIDTH)
        self.mlp = nn.ModuleDict(
            {
                "c_fc": nn.Linear(WIDTH, 4 * WIDTH),
                "c_proj": nn.Linear(4 * WIDTH, WIDTH),
                "act": NewGELU(),
                "dropout": nn.Dropout(dropout),
            }
        )
        m = self.mlp
        self.mlpf = lambda x: m.dropout(m.c_proj(m.act(m.c_fc(x))))

    def forward(self, x):
        x = x + self.attn(self.ln_1(x))
        return x + self.mlpf(self.ln_2(x))


class MinGPT(nn.Module):
    """(idx, targets) -> (logits, loss)."""

    def __init__(self, dropout: float = 0.1) -> None:
        super().__init__()
        self.transformer = nn.ModuleDict(
            {
                "wte": nn.Embedding(VOCABULARY, WIDTH),
                "wpe": nn.Embedding(64, WIDTH),
                "drop": nn.Dropout(dropout),
                "h": nn.ModuleList(MinBlock(dropout) for _ in range(LAYERS)),
                "ln_f": nn.LayerNorm(WIDTH),
            }
        )
        self.lm_head = nn.Linear(WIDTH, VOCABULARY, bias=False)

    def forward(self, idx, targets):
        places = torch.arange(idx.size(1), device=idx.device).unsqueeze(0)
        x = self.transformer.drop(self.transformer.wte(idx) + self.transformer.wpe(places))
        for block in self.transformer.h:
            x = block(x)
        logits = self.lm_head(self.transformer.ln_f(x))
        return logits, loss_of(logits, targets)


class RMSNorm(nn.Module):
    """Its weight is called scale."""

    def __init__(self, dim: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.eps, self.scale = eps, nn.Parameter(torch.ones(dim))

    def forward(self, x):
        normed = x.float() * torch.rsqrt(x.float().pow(2).mean(-1, keepdim=True) + self.eps)
        return normed.type_as(x) * self.scale


class RotaryPositionalEmbeddings(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        theta = 1.0 / (10000 ** (torch.arange(0, SIZE, 2).float() / SIZE))
        angles = torch.outer(torch.arange(64).float(), theta)
        self.register_buffer("cache", torch.stack([angles.cos(), angles.sin()], -1), False)

    def forward(self, x):
        """``x``: (b, s, heads, size), pairs side by side."""
        pairs = x.float().reshape(*x.shape[:-1], -1, 2)
        turn = self.cache[: x.size(1)].view(1, x.size(1), 1, -1, 2)
        turned = [
            pairs[..., 0] * turn[..., 0] - pairs[..., 1] * turn[..., 1],
            pairs[..., 1] * turn[..., 0] + pairs[..., 0] * turn[..., 1],
        ]
        return torch.stack(turned, -1).flatten(3).type_as(x)


class TuneAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q_proj = nn.Linear(WIDTH, WIDTH, bias=False)
        self.k_proj = nn.Linear(WIDTH, KV_HEADS * SIZE, bias=False)
        self.v_proj = nn.Linear(WIDTH, KV_HEADS * SIZE, bias=False)
        self.output_proj = nn.Linear(WIDTH, WIDTH, bias=False)
        self.pos_embeddings = RotaryPositionalEmbeddings()

    def forward(self, x, y):
        b, s, _ = x.shape
        share = HEADS // KV_HEADS
        q = self.pos_embeddings(self.q_proj(x).view(b, s, HEADS, SIZE)).transpose(1, 2)
        k = self.pos_embeddings(self.k_proj(y).view(b, s, KV_HEADS, SIZE)).transpose(1, 2)
        v = self.v_proj(y).view(b, s, KV_HEADS, SIZE).transpose(1, 2)
        wide = (b, KV_HEADS, share, s, SIZE)
        k, v = (t.unsqueeze(2).expand(wide).flatten(1, 2) for t in (k, v))
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.output_proj(out.transpose(1, 2).contiguous().view(b, s, -1))


class TuneFeedForward(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w1 = nn.Linear(WIDTH, 64, bias=False)
        self.w2 = nn.Linear(64, WIDTH, bias=False)
        self.w3 = nn.Linear(WIDTH, 64, bias=False)
        self.activation = nn.SiLU()

    def forward(self, x):
        return self.w2(self.activation(self.w1(x)) * self.w3(x))


class TuneLayer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attn, self.mlp = TuneAttention(), TuneFeedForward()
        self.sa_norm, self.mlp_norm = RMSNorm(WIDTH), RMSNorm(WIDTH)
        self.sa_scale, self.mlp_scale = nn.Identity(), nn.Identity()

    def forward(self, x):
        h = self.sa_norm(x)
        h = self.sa_scale(self.attn(h, h)) + x
        return h + self.mlp_scale(self.mlp(self.mlp_norm(h)))


class Tune(nn.Module):
    """torchtune's decoder: tokens -> logits; the loss is outside."""

    def __init__(self) -> None:
        super().__init__()
        self.tok_embeddings = nn.Embedding(VOCABULARY, WIDTH)
        self.layers = nn.ModuleList(TuneLayer() for _ in range(LAYERS))
        self.norm = RMSNorm(WIDTH)
        self.output = nn.Linear(WIDTH, VOCABULARY, bias=False)

    def forward(self, tokens):
        h = self.tok_embeddings(tokens)
        for layer in self.layers:
            h = layer(h)
        return self.output(self.norm(h)).float()


class TitanAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.wq = nn.Linear(WIDTH, WIDTH, bias=False)
        self.wk = nn.Linear(WIDTH, KV_HEADS * SIZE, bias=False)
        self.wv = nn.Linear(WIDTH, KV_HEADS * SIZE, bias=False)
        self.wo = nn.Linear(WIDTH, WIDTH, bias=False)

    def forward(self, x, freqs_cis):
        b, s, _ = x.shape
        q, k, v = (w(x).view(b, s, -1, SIZE) for w in (self.wq, self.wk, self.wv))
        q, k = (
            torch.view_as_real(
                torch.view_as_complex(t.float().reshape(*t.shape[:-1], -1, 2))
                * freqs_cis[:s].view(1, s, 1, -1)
            )
            .flatten(3)
            .type_as(t)
            for t in (q, k)
        )
        k, v = (t.repeat_interleave(HEADS // KV_HEADS, dim=2) for t in (k, v))
        q, k, v = (t.transpose(1, 2) for t in (q, k, v))
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.wo(out.transpose(1, 2).contiguous().view(b, s, -1))


class TitanFeedForward(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w1 = nn.Linear(WIDTH, 64, bias=False)
        self.w2 = nn.Linear(64, WIDTH, bias=False)
        self.w3 = nn.Linear(WIDTH, 64, bias=False)

    def forward(self, x):
        return self.w2(F.silu(self.w1(x)) * self.w3(x))


class TitanBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention, self.feed_forward = TitanAttention(), TitanFeedForward()
        self.attention_norm, self.ffn_norm = nn.RMSNorm(WIDTH, 1e-5), nn.RMSNorm(WIDTH, 1e-5)

    def forward(self, x, freqs_cis):
        x = x + self.attention(self.attention_norm(x), freqs_cis)
        return x + self.feed_forward(self.ffn_norm(x))


class Titan(nn.Module):
    """torchtitan's transformer: blocks in a dict by number, the loss outside."""

    def __init__(self) -> None:
        super().__init__()
        self.tok_embeddings = nn.Embedding(VOCABULARY, WIDTH)
        self.layers = nn.ModuleDict({str(at): TitanBlock() for at in range(LAYERS)})
        self.norm = nn.RMSNorm(WIDTH, 1e-5)
        self.output = nn.Linear(WIDTH, VOCABULARY, bias=False)
        theta = 1.0 / (10000 ** (torch.arange(0, SIZE, 2).float() / SIZE))
        angles = torch.outer(torch.arange(64).float(), theta)
        self.register_buffer("freqs_cis", torch.polar(torch.ones_like(angles), angles), False)

    def forward(self, tokens):
        h = self.tok_embeddings(tokens)
        for layer in self.layers.values():
            h = layer(h, self.freqs_cis)
        return self.output(self.norm(h))
