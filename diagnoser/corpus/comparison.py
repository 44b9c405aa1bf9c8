"""What a trace says of its run: whether a fault changed anything, whether the training diverged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from probe import trace
from probe.heads import split
from probe.schema import Frame, Header

INCIDENTAL_UNITS = frozenset({"s", "bytes"})
"""Time and memory differ between any two runs."""

DIVERGED = 2.0
"""log2 of a loss over that of a guess. Of 142 clean trainings one stayed above, at 5.2 and with
gradients of 0 all over; the next stayed at 0.5."""


def _measurements(path: Path) -> dict[int, dict[str, np.float32]]:
    """Step -> column key -> value, incidental columns left out."""
    header: Header | None = None
    names: list[tuple[int, str]] = []
    found: dict[int, dict[str, np.float32]] = {}
    for record in trace.load(path):
        if isinstance(record, Header):
            header = record
            names = _compared(header)
        elif isinstance(record, Frame) and header is not None:
            values: npt.NDArray[np.float32] = record.array
            found[record.step] = {key: values[index] for index, key in names}
    return found


def _compared(header: Header) -> list[tuple[int, str]]:
    nodes = {site.name: site.node for site in header.anatomy.sites}
    kept = []
    for index, column in enumerate(header.columns):
        metric = header.metric(column.metric, nodes[split(column.site)[0]])
        if metric is None or metric.unit not in INCIDENTAL_UNITS:
            kept.append((index, column.key))
    return kept


def first_difference(clean: Path, other: Path) -> str | None:
    """Where the traces first differ, ``column at step n``; None where in time and memory only."""
    left, right = _measurements(clean), _measurements(other)
    if left.keys() != right.keys():
        return "sampled steps"
    for step, values in left.items():
        others = right[step]
        if values.keys() != others.keys():
            return f"columns at step {step}"
        for key, value in values.items():
            if value != others[key] and not (np.isnan(value) and np.isnan(others[key])):
                return f"{key} at step {step}"
    return None


def frame_count(path: Path) -> int:
    """Frames in the trace."""
    return sum(isinstance(record, Frame) for record in trace.load(path))


def diverged(path: Path) -> bool:
    """Whether half of the losses were four times that of a guess, or no number: what does not learn
    is no example of a healthy run."""
    found = _measurements(path).values()
    excess = np.array([values.get("output/loss_excess", np.nan) for values in found])
    losses = np.array([values.get("training/loss", np.nan) for values in found])
    return float(np.mean((excess > DIVERGED) | ~np.isfinite(losses))) > 0.5
