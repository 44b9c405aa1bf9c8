"""From named values to a frame: one vector, copied off the device without waiting for it."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from probe.measure.sampled import Values
from probe.scalars import Number, number
from probe.schema import Column, Frame


@dataclass
class Copied:
    """Values on their way to the host: ``tensor`` is complete once ``event`` has passed."""

    tensor: torch.Tensor
    event: torch.cuda.Event | None

    def array(self) -> np.ndarray:
        """Wait for the copy (in the publishing thread only), then float32 on the host."""
        if self.event is not None:
            self.event.synchronize()
        return self.tensor.numpy().astype("<f4", copy=False)


def copy_out(values: torch.Tensor) -> Copied:
    """Start the copy of a 1-d float32 tensor to the host."""
    if not values.is_cuda:
        return Copied(values, None)
    host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    host.copy_(values, non_blocking=True)
    event = torch.cuda.Event()
    event.record()
    return Copied(host, event)


def gather(tensors: list[torch.Tensor], grams: list[torch.Tensor]) -> Copied | None:
    """Start the copy of all of them as one vector; None where there are none."""
    if not tensors and not grams:
        return None
    device = next((t.device for t in [*tensors, *grams] if t.is_cuda), torch.device("cpu"))
    # The few values made on the host (constants) join the others without a copy each.
    moved = [
        t.reshape(()).float() if t.device == device else t.reshape(()).float().to(device)
        for t in tensors
    ]
    pieces = [torch.stack(moved)] if moved else []
    pieces += [gram.reshape(-1).float() for gram in grams]
    return copy_out(torch.cat(pieces))


class Measured:
    """Which of a sample's values are numbers, known once they are on the host."""

    def __init__(self, values: Mapping[str, Values]) -> None:
        pairs = [((s, m), v) for s, metrics in values.items() for m, v in metrics.items()]
        plain = [(key, v) for key, v in pairs if not isinstance(v, torch.Tensor)]
        self._plain = {key for key, v in plain if not math.isnan(v)}
        self._names = [key for key, v in pairs if isinstance(v, torch.Tensor)]
        tensors = [v.detach() for _, v in pairs if isinstance(v, torch.Tensor)]
        self._copied = gather(tensors, [])

    def keys(self) -> set[tuple[str, str]]:
        """(site, metric) of the numbers. Waits; called in the publishing thread."""
        if self._copied is None:
            return self._plain
        known = ~np.isnan(self._copied.array())
        found = {key for key, good in zip(self._names, known.tolist(), strict=True) if good}
        return found | self._plain


class FrameDraft:
    """A sampled step's values, to be finished in the publishing thread.

    ``values``: by site, tensors on the device or floats. ``grams``: by attention site, (h, p, p),
    see :func:`probe.measure.attention.gram`.
    """

    def __init__(
        self, step: int, values: Mapping[str, Values], grams: Mapping[str, torch.Tensor]
    ) -> None:
        self.step = step
        self.time = time.time()
        self.cost = 0.0
        self.skipped: list[Number] = []
        """As :attr:`probe.scalars.Row.skipped`; then there is no frame."""
        self._known: dict[tuple[str, str], Number] = {}
        self._names: list[tuple[str, str]] = []
        tensors: list[torch.Tensor] = []
        for site, metrics in values.items():
            for metric, value in metrics.items():
                if isinstance(value, torch.Tensor):
                    self._names.append((site, metric))
                    tensors.append(value.detach())
                else:
                    self._known[site, metric] = value
        self._grams = [(site, tuple(gram.shape)) for site, gram in grams.items()]
        self._copied = gather(tensors, list(grams.values()))

    def add(self, site: str, metric: str, value: Number) -> None:
        """A value that became known later, such as the loss the user logged."""
        self._known[site, metric] = value

    def frame(
        self, seq: int, rank: int, columns: tuple[Column, ...], history: History
    ) -> Frame | None:
        """Wait for the copy and finish; None for a skipped step. In the publishing thread only."""
        if any(number(flag) for flag in self.skipped):
            return None
        found: dict[tuple[str, str], float] = {k: number(v) for k, v in self._known.items()}
        if self._copied is not None:
            array = self._copied.array()
            found.update(zip(self._names, array[: len(self._names)].tolist(), strict=True))
            at = len(self._names)
            for site, shape in self._grams:
                size = int(np.prod(shape))
                gram = array[at : at + size].reshape(shape)
                found[site, "effective_rank"] = effective_rank(gram)
                at += size
        history.finish(found)
        values = np.full(len(columns), np.nan, dtype="<f4")
        for at, column in enumerate(columns):
            values[at] = found.get((column.site, column.metric), np.nan)
        return Frame(
            seq=seq,
            rank=rank,
            step=self.step,
            time=self.time,
            values=values.tobytes(),
            cost=self.cost,
        )


def effective_rank(gram: np.ndarray) -> float:
    """exp of the entropy of normalised singular values over their number, mean over heads.

    ``gram`` (h, p, p) = A Aᵀ of maps A (p, n); its eigenvalues are the squared singular values.
    """
    if not np.isfinite(gram).all():
        return float("nan")
    singular = np.sqrt(np.clip(np.linalg.eigvalsh(gram.astype(np.float64)), 0.0, None))
    share = singular / np.maximum(singular.sum(axis=-1, keepdims=True), 1e-12)
    entropy = -(share * np.log(np.maximum(share, 1e-12))).sum(axis=-1)
    return float((np.exp(entropy) / gram.shape[-1]).mean())


class History:
    """What needs earlier samples: volatility and a clipped norm. Lives in the publishing thread."""

    def __init__(self) -> None:
        self._norms: deque[float] = deque(maxlen=20)

    def finish(self, found: dict[tuple[str, str], float]) -> None:
        """Add ``volatility`` (after 5 samples) and ``clip_level`` (where three norms are equal)."""
        norm = found.get(("training", "grad_norm"), float("nan"))
        if not np.isfinite(norm):
            return
        self._norms.append(norm)
        recent = np.array(self._norms)
        if len(recent) >= 5 and recent.mean() > 0:
            found["training", "volatility"] = float(recent.var() / recent.mean() ** 2)
        last = recent[-3:]
        if len(last) == 3 and last.min() > 0 and last.max() / last.min() < 1.001:
            found["training", "clip_level"] = float(last.mean())
