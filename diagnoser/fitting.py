"""Fits a network to samples: batches, early stopping, calibration on runs it did not see."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional

from diagnoser import schema
from diagnoser.dataset import to_batch
from diagnoser.losses import class_weights, loss
from diagnoser.model import CERTAIN, DiagnosisNetwork, Output, Shape, cause_log_probabilities
from diagnoser.weights import Calibration, Trained

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from diagnoser.dataset import Sample
    from diagnoser.manifest import Run


@dataclass(frozen=True)
class Settings:
    """Of a training. Adam's rate and decay, batch size as in the DEFault++ manuscript."""

    epochs: int = 30
    patience: int = 8
    batch: int = 128
    learning_rate: float = 2e-3
    weight_decay: float = 1e-4
    seed: int = 0
    shape: Shape = field(default_factory=Shape)


def split_validation(runs: Sequence[Run], share: float = 0.15, seed: int = 0) -> set[str]:
    """Ids of runs to hold back for early stopping and calibration: the same share of clean runs
    and of every root cause, so that no class is lost."""
    random = np.random.default_rng(seed)
    by_class: dict[str, list[str]] = {}
    for run in sorted(runs, key=lambda run: run.id):
        by_class.setdefault(run.key or "clean", []).append(run.id)
    held: set[str] = set()
    for ids in by_class.values():
        count = round(share * len(ids) + float(random.uniform(-0.5, 0.5)))
        held.update(random.permutation(ids)[: min(count, len(ids) - 1)].tolist())
    return held


def fit(
    samples: Sequence[Sample],
    settings: Settings | None = None,
    report: Callable[[str], None] = lambda text: None,
) -> Trained:
    """Train on samples; a share of the runs is held back to stop in time and to calibrate."""
    settings = settings or Settings()
    runs = {sample.run.id: sample.run for sample in samples}
    held = split_validation(list(runs.values()), seed=settings.seed)
    training = [sample for sample in samples if sample.run.id not in held]
    validation = [sample for sample in samples if sample.run.id in held]
    torch.manual_seed(settings.seed)
    network = DiagnosisNetwork(schema.all_feature_names(), settings.shape)
    _fit_scales(network, training)
    _descend(network, training, validation or training, settings, report)
    calibration = calibrate(network, validation or training)
    return Trained(network, calibration)


def _fit_scales(network: DiagnosisNetwork, samples: Sequence[Sample]) -> None:
    random = np.random.default_rng(0)
    some = random.permutation(len(samples))[:3000]
    for kind in network.kinds:
        rows = np.concatenate([samples[at].nodes[kind] for at in some]).astype(np.float32)
        network.fit_scale(kind, torch.from_numpy(rows))
    healthy = [sample.fired for sample in samples if not sample.faulty]
    if healthy:
        network.votes.fit(torch.from_numpy(np.stack(healthy)))


def _descend(
    network: DiagnosisNetwork,
    training: Sequence[Sample],
    validation: Sequence[Sample],
    settings: Settings,
    report: Callable[[str], None],
) -> None:
    random = np.random.default_rng(settings.seed)
    weights = class_weights(
        torch.tensor([sample.category for sample in training]),
        torch.tensor([sample.cause for sample in training]),
    )
    optimizer = torch.optim.Adam(
        network.parameters(), settings.learning_rate, weight_decay=settings.weight_decay
    )
    rounds = settings.epochs * max(1, -(-len(training) // settings.batch))
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 1.5 * settings.learning_rate, total_steps=rounds + 1
    )
    held = [to_batch(part) for part in _parts(validation, 2 * settings.batch)]
    best, best_state, since = float("inf"), copy.deepcopy(network.state_dict()), 0
    for epoch in range(settings.epochs):
        network.train()
        order = random.permutation(len(training))
        for part in np.array_split(order, max(1, -(-len(order) // settings.batch))):
            batch, targets = to_batch([training[at] for at in part])
            value = loss(network, network(batch), targets, weights, batch)
            optimizer.zero_grad()
            value.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
            optimizer.step()
            schedule.step()
        network.eval()
        with torch.no_grad():
            now = sum(
                float(loss(network, network(batch), targets, weights, batch)) * batch.graphs
                for batch, targets in held
            ) / max(len(validation), 1)
        report(f"epoch {epoch + 1}: validation loss {now:.3f}")
        if now < best:
            best, best_state, since = now, copy.deepcopy(network.state_dict()), 0
        else:
            since += 1
            if since >= settings.patience:
                break
    network.load_state_dict(best_state)
    network.eval()


def _parts(samples: Sequence[Sample], size: int) -> list[list[Sample]]:
    return [list(samples[at : at + size]) for at in range(0, len(samples), size)]


TEMPERATURES = tuple(float(t) for t in np.geomspace(0.5, 5.0, 24))
HIGHS = (0.8, 0.85, 0.9, 0.93, 0.95, 0.97)
FALSE_ALARM_COST = 10.0
"""How many missed shares of the faulty samples one share of false alarms is worth. (A bound on the
share of false alarms alone would let one odd run among few held back decide.)"""


@torch.no_grad()
def calibrate(network: DiagnosisNetwork, samples: Sequence[Sample]) -> Calibration:
    """Temperatures by the likelihood of held-back samples; the flagging threshold by what missed
    faults and false alarms cost on them."""
    network.eval()
    faulty, certain, wanted = [], [], []
    category, cause, is_category, is_cause = [], [], [], []
    for part in _parts(samples, 256):
        batch, targets = to_batch(part)
        output = network(batch)
        chosen = targets.category >= 0
        faulty.append(output.faulty)
        certain.append(output.certain)
        wanted.append(targets.faulty)
        category.append(output.category[chosen])
        cause.append(output.cause[chosen])
        is_category.append(targets.category[chosen])
        is_cause.append(targets.cause[chosen])
    logits, truth = torch.cat(faulty), torch.cat(wanted)
    temperature = min(
        TEMPERATURES,
        key=lambda t: float(functional.binary_cross_entropy_with_logits(logits / t, truth)),
    )
    sure = torch.cat(certain)
    calibrated = torch.where(sure, (logits / temperature).clamp(min=CERTAIN), logits / temperature)
    high = threshold(calibrated.sigmoid(), truth)
    if not len(torch.cat(is_category)):
        return Calibration(faulty_temperature=temperature, high=high)
    return Calibration(
        faulty_temperature=temperature,
        category_temperature=_best(torch.cat(category), torch.cat(is_category)),
        cause_temperature=_best_cause(torch.cat(cause), torch.cat(is_cause)),
        high=high,
        low=min(0.4, high / 2),
    )


def threshold(probability: torch.Tensor, truth: torch.Tensor) -> float:
    """Where missed faults and (ten times as dear) false alarms cost least."""
    healthy, faulty = probability[truth == 0], probability[truth == 1]

    def cost(high: float) -> float:
        alarms = float((healthy >= high).float().mean()) if len(healthy) else 0.0
        missed = float((faulty < high).float().mean()) if len(faulty) else 0.0
        return missed + FALSE_ALARM_COST * alarms

    return min(HIGHS, key=cost)


def _best(logits: torch.Tensor, labels: torch.Tensor) -> float:
    return min(TEMPERATURES, key=lambda t: float(functional.cross_entropy(logits / t, labels)))


def _best_cause(logits: torch.Tensor, labels: torch.Tensor) -> float:
    nothing = torch.empty(0)

    def cost(temperature: float) -> float:
        output = Output(nothing, nothing, logits, nothing, nothing, nothing, nothing, nothing)
        return float(functional.nll_loss(cause_log_probabilities(output, temperature), labels))

    return min(TEMPERATURES, key=cost)
