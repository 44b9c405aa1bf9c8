"""Dropout by its role in the model: what the modules hold against what the config states."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import Any

from torch import nn

from probe.anatomy import ModelParts


@dataclass(frozen=True)
class Dropout:
    """Rates of the modules of one role, and the config's; None where it states none."""

    role: str
    rates: tuple[float, ...]
    intended: float | None

    @property
    def gap(self) -> float:
        """Usual rate minus the config's; NaN where either is not known."""
        if not self.rates or self.intended is None:
            return float("nan")
        return statistics.median(self.rates) - self.intended


def _rates(modules: list[nn.Module | None]) -> tuple[float, ...]:
    known: list[Any] = [getattr(module, "p", None) for module in modules if module is not None]
    return tuple(float(p) for p in known if isinstance(p, (int, float)))


def of_embedding(parts: ModelParts) -> Dropout:
    """On the sum of the embeddings."""
    return Dropout("embeddings", _rates([parts.embedding_dropout]), parts.intent.embedding_dropout)


def of_classifier(parts: ModelParts) -> Dropout:
    """Before the linear that gives the classes: a dropout among its siblings."""
    path = parts.paths.get(parts.head, "") if parts.head is not None else ""
    owner = parts.root.get_submodule(path.rpartition(".")[0]) if path else parts.root
    beside = [m for m in owner.children() if isinstance(m, nn.Dropout)]
    if parts.head is None or parts.embedding_dropout in beside:
        beside = []
    return Dropout("classifier", _rates([*beside]), parts.intent.classifier_dropout)


def of_branches(parts: ModelParts) -> Dropout:
    """On both branches before they join the stream."""
    modules = [m for la in parts.attentions for m in (la.attention_dropout, la.ffn_dropout)]
    return Dropout("branches", _rates(modules), parts.intent.residual_dropout)


def of_feed_forward(parts: ModelParts) -> Dropout:
    """Between the activation and the contracting linear."""
    return Dropout("feed-forward", _rates([la.inner_dropout for la in parts.layers]), None)
