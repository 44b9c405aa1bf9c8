"""Saving and loading of trained weights: safetensors and JSON, nothing is unpickled."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from diagnoser import schema
from diagnoser.batch import collate
from diagnoser.decision import Score, Thresholds
from diagnoser.graph import RELATIONS, Graph
from diagnoser.model import (
    DiagnosisNetwork,
    Output,
    Shape,
    cause_log_probabilities,
    detection_logit,
)
from diagnoser.rules import rules_digest
from diagnoser.taxonomy import ROOT_CAUSE_KEYS

FORMAT = 1
DEFAULT = "default.safetensors"


class WeightsError(ValueError):
    """Weights that are missing, damaged or made for other features. The message says what to do."""


@dataclass(frozen=True)
class Calibration:
    """Temperatures of the three answers, and the probabilities to flag and to clear at."""

    faulty_temperature: float = 1.0
    category_temperature: float = 1.0
    cause_temperature: float = 1.0
    high: float = 0.9
    low: float = 0.4

    @property
    def thresholds(self) -> Thresholds:
        return Thresholds(self.high, self.low)


@dataclass
class Trained:
    """A network with its calibration and where it came from."""

    network: DiagnosisNetwork
    calibration: Calibration = field(default_factory=Calibration)
    about: dict[str, Any] = field(default_factory=dict)
    """Corpus checksum, held-out figures, settings of the training."""

    @torch.no_grad()
    def run(
        self,
        graphs: list[Graph],
        features: list[dict[str, np.ndarray]],
        fired: np.ndarray,
    ) -> tuple[list[Score], Output]:
        """Calibrated scores of several frames, and the raw output for importance."""
        self.network.eval()
        batch = collate(graphs, features, fired)
        output = self.network(batch)
        c = self.calibration
        logits = detection_logit(output, c.faulty_temperature)
        category = (output.category / c.category_temperature).softmax(dim=-1).numpy()
        cause = cause_log_probabilities(output, c.cause_temperature).exp().numpy()
        origin = output.origin.sigmoid()[batch.order].numpy()
        named = output.named.numpy()
        ends = np.cumsum([len(graph.node_kind) for graph in graphs])
        pieces = np.split(origin, ends[:-1])
        scores = [
            Score(float(logit), category[n], cause[n], pieces[n], bool(output.certain[n]), named[n])
            for n, logit in enumerate(logits.tolist())
        ]
        return scores, output


def save(trained: Trained, path: Path) -> None:
    """Write weights and metadata into one safetensors file."""
    metadata = {
        "format": FORMAT,
        "features": trained.network.names,
        "digest": schema.digest(),
        "root_causes": ROOT_CAUSE_KEYS,
        "rules": rules_digest(),
        "relations": RELATIONS,
        "shape": trained.network.shape.as_dict(),
        "calibration": vars(trained.calibration),
        "about": trained.about,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {name: value.contiguous() for name, value in trained.network.state_dict().items()}
    temporary = path.with_suffix(".partial")
    save_file(tensors, str(temporary), metadata={"diagnoser": json.dumps(metadata)})
    temporary.replace(path)


def load(path: Path | None = None) -> Trained:
    """Read weights (the package's own without ``path``). Raises :class:`WeightsError`."""
    path = _place(path)
    try:
        with safe_open(str(path), framework="pt") as stored:
            metadata = json.loads((stored.metadata() or {})["diagnoser"])
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
        _check(metadata, path)
        names = {kind: tuple(found) for kind, found in metadata["features"].items()}
        shape = metadata["shape"]
        shape["without"] = tuple(shape.get("without", ()))
        network = DiagnosisNetwork(names, Shape(**shape))
        network.load_state_dict(tensors)
        calibration = Calibration(**metadata["calibration"])
    except WeightsError:
        raise
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise WeightsError(
            f"{path} holds no weights of this diagnoser ({error}): train them again with "
            "`python -m diagnoser.train --corpus DIR`"
        ) from None
    network.eval()
    return Trained(network, calibration, metadata.get("about", {}))


def digest(path: Path | None = None) -> str:
    """Short checksum of a file of weights (the package's own without ``path``): which weights gave
    an answer. Raises :class:`WeightsError` where there is none."""
    return hashlib.sha256(_place(path).read_bytes()).hexdigest()[:16]


def _place(path: Path | None) -> Path:
    path = Path(str(files("diagnoser").joinpath("weights", DEFAULT))) if path is None else path
    if not path.is_file():
        raise WeightsError(
            f"no weights at {path}: train them with `python -m diagnoser.train --corpus DIR`"
        )
    return path


def _check(metadata: dict[str, Any], path: Path) -> None:
    again = "train them again with `python -m diagnoser.train --corpus DIR`"
    if metadata.get("format") != FORMAT:
        raise WeightsError(
            f"{path} has format {metadata.get('format')}, this version reads {FORMAT}: {again}"
        )
    theirs = {kind: tuple(names) for kind, names in metadata["features"].items()}
    ours = schema.all_feature_names()
    if theirs != ours:
        found = schema.difference(theirs, ours) or "the same names in another order"
        raise WeightsError(f"{path} was trained on other features ({found}): {again}")
    if tuple(metadata["root_causes"]) != ROOT_CAUSE_KEYS:
        raise WeightsError(f"{path} was trained with other root causes: {again}")
    if metadata["rules"] != rules_digest():
        raise WeightsError(f"{path} was trained with other rules for contracts: {again}")
    if tuple(metadata["relations"]) != RELATIONS:
        raise WeightsError(f"{path} was trained with other edge types: {again}")
