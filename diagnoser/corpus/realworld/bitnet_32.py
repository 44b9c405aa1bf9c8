"""A block adds the attention's output to itself instead of to its input."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from diagnoser.corpus.realworld.case import Case, Script
from diagnoser.corpus.realworld.models import HEADS, LAYERS, LENGTH, WIDTH
from diagnoser.corpus.realworld.scripts import RATE, STEPS
from diagnoser.corpus.realworld.token_rows import VOCABULARY, causal_batches


def _feed_forward() -> nn.Sequential:
    return nn.Sequential(
        nn.LayerNorm(WIDTH),
        nn.Linear(WIDTH, 2 * WIDTH),
        nn.GELU(),
        nn.Linear(2 * WIDTH, WIDTH),
    )


class Decoder(nn.Module):
    """Attention and feed-forward in two lists, walked through in pairs, as in the issue."""

    def __init__(self, fixed: bool) -> None:
        super().__init__()
        self._fixed = fixed
        self.emb = nn.Embedding(VOCABULARY, WIDTH)
        self.positions = nn.Embedding(LENGTH, WIDTH)
        self.layers = nn.ModuleList(
            nn.MultiheadAttention(WIDTH, HEADS, batch_first=True) for _ in range(LAYERS)
        )
        self.ffn_layers = nn.ModuleList(_feed_forward() for _ in range(LAYERS))
        self.norm = nn.LayerNorm(WIDTH)
        self.to_logits = nn.Linear(WIDTH, VOCABULARY)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        length = ids.shape[1]
        later = torch.ones(length, length, dtype=torch.bool).triu(1)
        x = self.emb(ids) + self.positions(torch.arange(length))
        for attention, ffn in zip(self.layers, self.ffn_layers, strict=True):
            skip = x
            x, _ = attention(x, x, x, attn_mask=later, is_causal=True, need_weights=False)
            x = x + skip if self._fixed else x + x
            x = ffn(x) + x
        logits: torch.Tensor = self.to_logits(self.norm(x))
        return logits


def build(fixed: bool) -> Script:
    """Training of a model written by hand."""
    model = Decoder(fixed).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.0)
    batches = causal_batches(18)

    def step() -> torch.Tensor:
        ids = next(batches)["input_ids"]
        logits = model(ids[:, :-1])
        loss = F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.detach()

    return Script(model, optimizer, step, STEPS)


CASE = Case(
    issue="kyegomez/BitNet#32",
    reported="residual connection wrong?",
    wrong="`x, _ = attn(x, x, x); x = x + x`: the input of attention is overwritten before it "
    "is added, so that no skip connection is left.",
    category="residual",
    root_cause="skip_connection",
    shown="training",
    build=build,
)
