"""Training samples: the features of a run at some of its moments, with their labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from diagnoser.batch import Batch, collate
from diagnoser.losses import Targets
from diagnoser.taxonomy import CATEGORY_NAMES, ROOT_CAUSE_KEYS, categories

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import numpy.typing as npt

    from diagnoser.extract import Extracted, RunFeatures
    from diagnoser.graph import Graph
    from diagnoser.manifest import Run

AFTER = (2, 4, 8, 16)
"""Moments of a faulty run: frames after the first that the fault may show in; and the end."""

CLEAN_MOMENTS = 5


@dataclass
class Sample:
    """A run at one moment. Labels -1 where healthy. ``origin``: (nodes,) 0, 1 or NaN."""

    run: Run
    frame: int
    graph: Graph
    nodes: dict[str, npt.NDArray[np.float16]]
    fired: npt.NDArray[np.float32]
    faulty: bool
    category: int
    cause: int
    origin: npt.NDArray[np.float32]


def origin_labels(graph: Graph, run: Run) -> npt.NDArray[np.float32]:
    """1 at the sites of the category's nodes in the faulty layers, 0 elsewhere; NaN at layers of
    those nodes where the manifest names none."""
    wanted = np.zeros(len(graph.node_kind), dtype=np.float32)
    if not run.faulty or run.category is None:
        return wanted
    place = 0
    for kind in graph.kinds:
        own = kind in categories()[run.category].nodes
        for layer in graph.layers[kind]:
            if own and (layer < 0 or layer in run.layers):
                # A fault of a layer does not sit in the node that the whole model shares.
                wanted[place] = 0.0 if layer < 0 and run.layers else 1.0
            elif own and not run.layers:
                wanted[place] = np.nan
            place += 1
    return wanted


def moments(run: Run, found: RunFeatures) -> list[tuple[int, bool]]:
    """(frame, faulty) pairs to learn from.

    The first frames after the start say little and are left out; faults of the cache can be seen
    only once the cache was measured.
    """
    frames = np.arange(len(found.steps))
    before = frames[(found.steps < run.start) & (frames >= 2)]
    after = frames[found.steps >= run.start]
    if not run.faulty:
        chosen = np.unique(np.linspace(2, len(frames) - 1, CLEAN_MOMENTS).round().astype(int))
        return [(int(frame), False) for frame in chosen if 2 <= frame < len(frames)]
    earlier = {len(before) // 2, len(before) - 1} if len(before) else set()
    pairs = [(int(before[at]), False) for at in sorted(earlier)]
    if run.category == "kv_cache":
        seen = after[found.cache_seen[after]]
        after = after[after >= seen[0]] if len(seen) else after[:0]
    offsets = {at for at in AFTER if at < len(after)}
    offsets |= {len(after) - 1} if len(after) > 1 else set()
    pairs += [(int(after[at]), True) for at in sorted(offsets) if after[at] >= 2]
    return pairs


def sample_of(
    run: Run,
    graph: Graph,
    moment: tuple[int, bool],
    nodes: dict[str, npt.NDArray[np.float16]],
    fired: npt.NDArray[np.float32],
) -> Sample:
    """The run after a frame, with its labels. ``moment``: (frame, faulty)."""
    frame, faulty = moment
    return Sample(
        run=run,
        frame=frame,
        graph=graph,
        nodes=nodes,
        fired=fired,
        faulty=faulty,
        category=CATEGORY_NAMES.index(run.category) if faulty and run.category else -1,
        cause=ROOT_CAUSE_KEYS.index(run.key) if faulty and run.key else -1,
        origin=(
            origin_labels(graph, run)
            if faulty
            else np.zeros(len(graph.node_kind), dtype=np.float32)
        ),
    )


def samples_of(run: Run, found: RunFeatures) -> list[Sample]:
    """All samples of a run."""
    graph = found.graph
    result = []
    for frame, faulty in moments(run, found):
        nodes = {kind: values[frame].copy() for kind, values in found.nodes.items()}
        result.append(sample_of(run, graph, (frame, faulty), nodes, found.fired[frame]))
    return result


def load_samples(extracted: Extracted, runs: Iterable[Run] | None = None) -> list[Sample]:
    """Samples of the given runs (all by default)."""
    chosen = extracted.runs if runs is None else runs
    return [sample for run in chosen for sample in samples_of(run, extracted.features(run))]


def to_batch(samples: Sequence[Sample]) -> tuple[Batch, Targets]:
    """Samples as tensors. Detection counts every run alike, however many moments it gave."""
    batch = collate(
        [sample.graph for sample in samples],
        [sample.nodes for sample in samples],
        np.stack([sample.fired for sample in samples]),
    )
    origin = torch.full((len(batch.graph_of),), float("nan"))
    origin[batch.order] = torch.from_numpy(np.concatenate([s.origin for s in samples]))
    targets = Targets(
        faulty=torch.tensor([float(sample.faulty) for sample in samples]),
        category=torch.tensor([sample.category for sample in samples]),
        cause=torch.tensor([sample.cause for sample in samples]),
        origin=origin,
        weight=torch.ones(len(samples)),
    )
    return batch, targets
