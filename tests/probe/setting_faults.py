"""Faults in how a model is set up, one for each contract on it; as in ``family_faults``."""

from __future__ import annotations

from fault_target import Inapplicable, Target
from torch import nn


def embedding_dropout(at: Target) -> None:
    _raised(at.parts.embedding_dropout)


def classifier_dropout(at: Target) -> None:
    beside = [m for name, m in at.model.named_modules() if isinstance(m, nn.Dropout)]
    inside = {m for layer in at.parts.layers for m in layer.block.modules()}
    outer = [m for m in beside if m not in inside and m is not at.parts.embedding_dropout]
    _raised(outer[-1] if outer else None)


def _raised(module: nn.Module | None) -> None:
    if module is None:
        raise Inapplicable
    module.p = 0.4


MADE_FOR = {
    "embedding/dropout_gap": (embedding_dropout,),
    "output/dropout_gap": (classifier_dropout,),
}
