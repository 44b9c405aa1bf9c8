"""Rotary angles are computed in the model's half precision: late positions coincide."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from diagnoser.corpus.realworld import models
from diagnoser.corpus.realworld.case import Case, Script
from diagnoser.corpus.realworld.scripts import training
from diagnoser.corpus.realworld.token_rows import causal_batches

LENGTH = 352


class RotaryEmbedding(nn.Module):
    """Cosines and sines; the frequencies are a buffer, which ``model.to(dtype)`` casts too."""

    inv_freq: torch.Tensor

    def __init__(self, size: int, base: float, wide: bool) -> None:
        super().__init__()
        self._wide = wide
        self._exponents = [at / size for at in range(0, size, 2)]
        self._base = base
        self.register_buffer("inv_freq", self._frequencies(), persistent=False)

    def _frequencies(self) -> torch.Tensor:
        return torch.tensor([self._base**-exponent for exponent in self._exponents])

    @torch.no_grad()
    def forward(
        self, states: torch.Tensor, position_ids: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        frequencies = self._frequencies() if self._wide else self.inv_freq
        angles = position_ids[..., None].type_as(frequencies) * frequencies
        angles = torch.cat([angles, angles], dim=-1)
        return angles.cos().to(states.dtype), angles.sin().to(states.dtype)


def build(fixed: bool) -> Script:
    """Training in bfloat16, which holds whole numbers up to 256 only."""
    model: Any = models.llama(num_hidden_layers=2, max_position_embeddings=LENGTH)
    base = model.config.rope_parameters["rope_theta"]
    model.model.rotary_emb = RotaryEmbedding(models.WIDTH // models.HEADS, base, wide=fixed)
    model.to(torch.bfloat16)
    return training(model, causal_batches(13, rows=2, length=LENGTH))


CASE = Case(
    issue="NVIDIA/Megatron-LM#535",
    reported="RoPE `seq` loses fraction bits with `fp16` enabled",
    wrong="Positions are cast to the dtype of the frequencies, which is the model's: beyond "
    "what that dtype can count, neighbouring tokens share one position.",
    category="positional",
    root_cause="interpolation",
    shown="training",
    build=build,
)
