"""The two kinds of script that most cases are: a plain training loop, and greedy generation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from diagnoser.corpus.realworld.case import Script
from diagnoser.corpus.realworld.token_rows import Batch, causal_batches, text

STEPS = 32
RATE = 1e-3


def _one_step(model: nn.Module, optimizer: torch.optim.Optimizer, batch: Batch) -> torch.Tensor:
    """Forward, backward and update; the loss, shape ()."""
    loss: torch.Tensor = model(**batch).loss
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return loss.detach()


def training(
    model: nn.Module,
    batches: Iterator[Batch],
    optimizer: torch.optim.Optimizer | None = None,
    steps: int = STEPS,
) -> Script:
    """Trains with AdamW on what requires gradients, unless another optimizer is given."""
    if optimizer is None:
        parameters = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(parameters, lr=RATE, weight_decay=0.0)
    chosen = optimizer
    model.train()
    return Script(model, chosen, lambda: _one_step(model, chosen, next(batches)), steps)


def pretrained(model: nn.Module, batches: Iterator[Batch], steps: int = 160) -> None:
    """Trains a while before anybody looks, so that the model has learned to attend."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=3 * RATE, weight_decay=0.0)
    script = training(model, batches, optimizer)
    for _ in range(steps):
        script.step()


def generating(
    model: Any,
    *,
    prompt: int = 10,
    new: int = 14,
    times: int = 2,
    cache: Callable[[], Any] | None = None,
) -> Script:
    """Trains a while, then continues prompts of two rows greedily, with the model's own cache or
    the one that ``cache()`` makes."""
    pretrained(model, causal_batches(1, length=prompt + new))
    model.eval()
    generator = torch.Generator().manual_seed(2)

    def step() -> torch.Tensor:
        ids = text(generator, 2, prompt)
        found: torch.Tensor = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=new,
            do_sample=False,
            pad_token_id=model.config.pad_token_id,
            **({} if cache is None else {"past_key_values": cache()}),
        )
        return found

    return Script(model, None, step, times)
