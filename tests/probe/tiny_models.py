"""Small models of the three families, and a deterministic training of a few steps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
)

import probe
from probe.heads import split
from probe.schema import Frame, Header
from probe.trace import load

VOCABULARY = 100
FAMILIES = ("bert", "gpt2", "llama")


def make(family: str, dropout: float = 0.1, layers: int = 3) -> torch.nn.Module:
    torch.manual_seed(1)
    if family == "bert":
        return BertForSequenceClassification(
            BertConfig(
                vocab_size=VOCABULARY,
                hidden_size=32,
                num_hidden_layers=layers,
                num_attention_heads=4,
                intermediate_size=64,
                max_position_embeddings=64,
                hidden_dropout_prob=dropout,
                attention_probs_dropout_prob=dropout,
            )
        ).train()
    if family == "gpt2":
        return GPT2LMHeadModel(
            GPT2Config(
                vocab_size=VOCABULARY,
                n_embd=32,
                n_layer=layers,
                n_head=4,
                n_positions=64,
                resid_pdrop=dropout,
                attn_pdrop=dropout,
                embd_pdrop=dropout,
                bos_token_id=0,
                eos_token_id=0,
            )
        ).train()
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=32,
            num_hidden_layers=layers,
            num_attention_heads=4,
            num_key_value_heads=2,
            intermediate_size=64,
            max_position_embeddings=64,
            bos_token_id=0,
            eos_token_id=0,
        )
    ).train()


def batch(family: str, size: int = 6, length: int = 28) -> dict[str, torch.Tensor]:
    ids = torch.randint(5, VOCABULARY, (size, length))
    mask = torch.ones_like(ids)
    mask[1, 12:] = 0
    labels = torch.randint(0, 2, (size,))
    if family != "bert":
        labels = ids.masked_fill(mask == 0, -100)
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def train(
    model: torch.nn.Module,
    family: str,
    steps: int,
    *,
    before: Callable[[int, torch.optim.Optimizer], Any] = lambda step, optimizer: None,
    micro: int = 1,
    autocast: bool = False,
    optimizer: torch.optim.Optimizer | None = None,
    attach: dict[str, Any] | None = None,
) -> list[float]:
    """Losses of a few steps; with ``attach`` the probe watches (sockets off unless asked for)."""
    optimizer = optimizer or torch.optim.AdamW(model.parameters(), lr=1e-3)
    torch.manual_seed(7)
    watching = None
    if attach is not None:
        options = {"endpoint": False, "every": 1, "budget": None} | attach
        watching = probe.attach(model, optimizer, **options)
    losses = []
    for step in range(steps):
        before(step, optimizer)
        for _ in range(micro):
            # Around the forward only: weights cast inside one context are cached until it ends.
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
                loss = model(**batch(family)).loss
            loss.backward()
            losses.append(loss.item())
        optimizer.step()
        optimizer.zero_grad()
    if watching is not None:
        watching.close()
    return losses


class Seen:
    """A trace as a table: ``seen["mask@1/padding_mass"]`` is the metric over the frames."""

    def __init__(self, path: Path) -> None:
        self.records = load(path)
        self.header = next(r for r in self.records if isinstance(r, Header))
        self.frames = [r for r in self.records if isinstance(r, Frame)]
        self.array = np.stack([frame.array for frame in self.frames])
        self._index = {column.key: at for at, column in enumerate(self.header.columns)}

    def __getitem__(self, key: str) -> np.ndarray:
        return self.array[:, self._index[key]]

    def fired(self, from_step: int = 0, until: int | None = None) -> set[str]:
        """Contracts over their tolerance in most frames of some steps, without layers."""
        nodes = {site.name: site.node for site in self.header.anatomy.sites}
        rows = [
            at
            for at, frame in enumerate(self.frames)
            if frame.step >= from_step and (until is None or frame.step <= until)
        ]
        names = set()
        for at, column in enumerate(self.header.columns):
            node = nodes[split(column.site)[0]]
            metric = self.header.metric(column.metric, node)
            values = self.array[rows, at]
            values = np.abs(values[~np.isnan(values)])
            if metric.contract and len(values) and np.median(values) > metric.tolerance:
                names.add(f"{node}/{column.metric}")
        return names
