"""The baseline that any network has to beat: gradient-boosted trees on the same features.

Of every feature of a node kind the largest and the mean over the layers, and the rules that are
met; of these columns the :data:`COLUMNS` that tell the classes apart best one by one (F-test), so
that a fit takes minutes. Scikit-learn's histogram trees for faulty or not, the category, and the
root cause within it.
The layer is the one that the contracts name: trees over pooled features know none.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch

from diagnoser.decision import Score
from diagnoser.fitting import Settings, split_validation, threshold
from diagnoser.taxonomy import CATEGORY_NAMES, ROOT_CAUSE_KEYS
from diagnoser.votes import CAUSE_CATEGORY
from diagnoser.weights import Calibration

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt
    from sklearn.pipeline import Pipeline

    from diagnoser.dataset import Sample
    from diagnoser.graph import Graph

    Floats = npt.NDArray[np.float32]

ROUNDS = 80
LEAVES = 15
COLUMNS = 300


def pooled(nodes: Mapping[str, npt.NDArray[np.floating]], fired: npt.NDArray) -> Floats:
    """(columns,) of one moment; zeros for a kind without a site."""
    parts = []
    for values in nodes.values():
        rows = values.astype(np.float32)
        if len(rows):
            parts += [rows.max(axis=0), rows.mean(axis=0)]
        else:
            parts.append(np.zeros(2 * rows.shape[1], dtype=np.float32))
    return np.concatenate([*parts, fired.astype(np.float32)])


@dataclass
class Trees:
    """Answers like :class:`diagnoser.weights.Trained`."""

    faulty: Pipeline
    category: Pipeline
    causes: dict[int, Pipeline] = field(default_factory=dict)
    """By category, where the training knew several root causes of it."""
    only: dict[int, int] = field(default_factory=dict)
    """By category, the root cause where the training knew one."""
    calibration: Calibration = field(default_factory=Calibration)

    def run(
        self,
        graphs: list[Graph],
        features: list[dict[str, npt.NDArray]],
        fired: npt.NDArray,
    ) -> tuple[list[Score], None]:
        """Scores of several frames."""
        table = np.stack([pooled(x, f) for x, f in zip(features, fired, strict=True)])
        flagged = np.clip(self.faulty.predict_proba(table)[:, 1], 1e-6, 1 - 1e-6)
        category = np.zeros((len(table), len(CATEGORY_NAMES)))
        category[:, self.category.classes_] = self.category.predict_proba(table)
        cause = np.zeros((len(table), len(ROOT_CAUSE_KEYS)))
        for number in self.only.values():
            cause[:, number] = 1.0
        for model in self.causes.values():
            cause[:, model.classes_] = model.predict_proba(table)
        logits = np.log(flagged / (1 - flagged))
        scores = [
            Score(float(logits[n]), category[n], cause[n], np.zeros(len(graph.node_kind)))
            for n, graph in enumerate(graphs)
        ]
        return scores, None


def fit_trees(samples: Sequence[Sample], settings: Settings, rounds: int = ROUNDS) -> Trees:
    """Fit to samples; the same runs as for the network are held back to set the threshold."""
    runs = {sample.run.id: sample.run for sample in samples}
    held = split_validation(list(runs.values()), seed=settings.seed)
    table = np.stack([pooled(sample.nodes, sample.fired) for sample in samples])
    faulty = np.array([sample.faulty for sample in samples])
    category = np.array([sample.category for sample in samples])
    cause = np.array([sample.cause for sample in samples])
    kept = np.array([sample.run.id not in held for sample in samples])
    known = kept & (category >= 0)
    trees = Trees(
        _fitted(table[kept], faulty[kept].astype(int), settings.seed, rounds),
        _fitted(table[known], category[known], settings.seed, rounds),
    )
    for number in range(len(CATEGORY_NAMES)):
        own = known & (category == number)
        found = sorted(set(cause[own].tolist()))
        if len(found) == 1:
            trees.only[number] = found[0]
        elif found:
            trees.causes[number] = _fitted(table[own], cause[own], settings.seed, rounds)
    rest = ~kept if (~kept).any() else kept
    probability = torch.from_numpy(trees.faulty.predict_proba(table[rest])[:, 1])
    high = threshold(probability, torch.from_numpy(faulty[rest].astype(np.float32)))
    trees.calibration = Calibration(high=high, low=min(0.4, high / 2))
    assert all(CAUSE_CATEGORY[c] == number for number, c in trees.only.items())
    return trees


def _fitted(table: Floats, labels: npt.NDArray[np.int64], seed: int, rounds: int) -> Pipeline:
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.feature_selection import SelectKBest, VarianceThreshold, f_classif
    from sklearn.pipeline import make_pipeline

    varied = int((table.std(axis=0) > 0).sum())
    model = make_pipeline(
        VarianceThreshold(),
        SelectKBest(f_classif, k=min(COLUMNS, varied)),
        HistGradientBoostingClassifier(
            max_iter=rounds,
            max_leaf_nodes=LEAVES,
            l2_regularization=1.0,
            class_weight="balanced",
            early_stopping=False,
            random_state=seed,
        ),
    )
    return model.fit(table, labels)
