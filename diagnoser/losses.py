"""What the network is trained for: the DEFault++ manuscript's sum of losses, and the origin's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from diagnoser.model import cause_log_probabilities
from diagnoser.votes import CAUSE_CATEGORY

if TYPE_CHECKING:
    from diagnoser.batch import Batch
    from diagnoser.model import DiagnosisNetwork, Output

CONTRASTIVE_TEMPERATURE = 0.1
CONTRASTIVE_WEIGHT = 0.5
PROTOTYPE_WEIGHT = 0.3


@dataclass
class Targets:
    """``faulty``: (G,) 0 or 1. ``category``, ``cause``: (G,) indices, -1 where healthy.
    ``origin``: (N,) 0 or 1, NaN where unknown. ``weight``: (G,) of a sample in detection."""

    faulty: torch.Tensor
    category: torch.Tensor
    cause: torch.Tensor
    origin: torch.Tensor
    weight: torch.Tensor


@dataclass
class ClassWeights:
    """Inverse frequency, mean 1 over the samples: categories (12,), root causes (45,)."""

    category: torch.Tensor
    cause: torch.Tensor


def inverse_frequency(labels: torch.Tensor, classes: int) -> torch.Tensor:
    """Weights by which every class that occurs counts the same; 0 for classes that do not."""
    counts = torch.bincount(labels[labels >= 0], minlength=classes).float()
    weights = torch.where(counts > 0, 1.0 / counts.clamp(min=1), torch.zeros_like(counts))
    return weights * counts.sum() / (counts > 0).sum().clamp(min=1)


def contrastive(pooled: torch.Tensor, category: torch.Tensor, cause: torch.Tensor) -> torch.Tensor:
    """Supervised contrastive loss (Khosla et al. 2020) among samples of the same category:
    the same root cause attracts, another repels."""
    unit = functional.normalize(pooled, dim=1)
    similarity = unit @ unit.T / CONTRASTIVE_TEMPERATURE
    same_category = category[:, None] == category[None]
    same_category.fill_diagonal_(False)
    positive = (cause[:, None] == cause[None]) & same_category
    total = similarity.masked_fill(~same_category, float("-inf")).logsumexp(dim=1)
    has = positive.any(dim=1)
    if not bool(has.any()):
        return pooled.sum() * 0.0
    log_share = (similarity - total[:, None]).masked_fill(~positive, 0.0).sum(dim=1)
    return -(log_share[has] / positive.sum(dim=1)[has]).mean()


def loss(
    network: DiagnosisNetwork,
    output: Output,
    targets: Targets,
    weights: ClassWeights,
    batch: Batch,
) -> torch.Tensor:
    """Detection + category + root cause + 0.5 contrastive + 0.3 prototype + origin."""
    detection = functional.binary_cross_entropy_with_logits(
        output.faulty, targets.faulty, weight=targets.weight
    )
    total = detection + _origin(output.origin, targets.origin)
    faulty = torch.nonzero(targets.category >= 0).squeeze(-1)
    if len(faulty) == 0:
        return total
    category, cause = targets.category[faulty], targets.cause[faulty]
    total = total + functional.cross_entropy(
        output.category[faulty], category, weight=weights.category
    )
    log_cause = cause_log_probabilities(output)[faulty]
    total = total + functional.nll_loss(log_cause, cause, weight=weights.cause)
    if "separation" not in network.shape.without:
        total = total + CONTRASTIVE_WEIGHT * contrastive(output.pooled[faulty], category, cause)
    own = output.parts[faulty, cause].sum(dim=-1)
    return total + PROTOTYPE_WEIGHT * own.mean() / network.shape.group


def _origin(logits: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    known = ~torch.isnan(wanted)
    if not bool(known.any()):
        return logits.sum() * 0.0
    # About one node in sixty is an origin: without this weight the answer is always no.
    return functional.binary_cross_entropy_with_logits(
        logits[known], wanted[known], pos_weight=torch.tensor(10.0)
    )


def class_weights(category: torch.Tensor, cause: torch.Tensor) -> ClassWeights:
    """Weights from all training samples' labels (-1 where healthy)."""
    return ClassWeights(
        inverse_frequency(category, max(CAUSE_CATEGORY) + 1),
        inverse_frequency(cause, len(CAUSE_CATEGORY)),
    )
