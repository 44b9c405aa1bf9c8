"""The cache of sliding-window layers rolls one token too early."""

from __future__ import annotations

from typing import Any

import torch
from transformers import DynamicCache, MistralConfig, MistralForCausalLM
from transformers.cache_utils import DynamicSlidingWindowLayer

from diagnoser.corpus.realworld import models
from diagnoser.corpus.realworld.case import Case, Script
from diagnoser.corpus.realworld.scripts import generating

WINDOW = 16


class RollingLayer(DynamicSlidingWindowLayer):
    """A buffer of the window's size, rolled by one before a token is written that has no room.

    ``early``: already for the token that would just fill it.
    """

    def __init__(self, sliding_window: int, early: bool) -> None:
        super().__init__(sliding_window)
        self._early = early
        self._kept: list[torch.Tensor] = []

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **others: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        new = key_states.shape[-2]
        before, self.cumulative_length = self.cumulative_length, self.cumulative_length + new
        if before == 0:
            self.lazy_initialization(key_states, value_states)
            self._kept = [
                _buffer(states, self.sliding_window) for states in (key_states, value_states)
            ]
        else:
            last = self.sliding_window - 1
            full = before >= last if self._early else before > last
            for at, states in enumerate((key_states, value_states)):
                if full:
                    self._kept[at] = self._kept[at].roll(-1, dims=2)
                self._kept[at][:, :, min(before, last)] = states[:, :, 0]
        held = min(self.cumulative_length, self.sliding_window)
        self.keys, self.values = (kept[:, :, :held] for kept in self._kept)
        return self.keys, self.values


def _buffer(states: torch.Tensor, size: int) -> torch.Tensor:
    """``states`` (rows, heads, n, d), n up to ``size``, in a buffer of zeros."""
    rows, heads, length, width = states.shape
    buffer = states.new_zeros(rows, heads, size, width)
    buffer[:, :, :length] = states
    return buffer


def build(fixed: bool) -> Script:
    """Generation past the window, with the user's own cache."""
    model: Any = MistralForCausalLM(
        MistralConfig(**models.rotary_settings(), sliding_window=WINDOW)
    )

    def cache() -> DynamicCache:
        made = DynamicCache(config=model.config)
        made.layers = [RollingLayer(WINDOW, early=not fixed) for _ in model.model.layers]
        return made

    return generating(model, new=16, cache=cache)


CASE = Case(
    issue="huggingface/transformers#37574",
    reported="Wrong KV cache update for sliding-window attention layers when the total sequence "
    "length reaches the window size",
    wrong="The buffer is rolled already for the token that would just fill it: the oldest one "
    "is lost too early and a row of zeros stays among the keys.",
    category="kv_cache",
    root_cause="memory_layout",
    shown="generating",
    build=build,
)
