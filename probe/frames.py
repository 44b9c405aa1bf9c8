"""From named values to a frame: one vector, copied off the device without waiting for it."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from probe.heads import split
from probe.measure.sampled import Values
from probe.measurement import Measurement
from probe.scalars import Number, number
from probe.schema import Column, Frame

Key = tuple[str, str]
"""Site and metric."""


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


def gather(tensors: list[torch.Tensor], larger: list[torch.Tensor]) -> Copied | None:
    """Start the copy of all of them as one vector: numbers, then ``larger`` ones of any shape.

    None where there are none.
    """
    if not tensors and not larger:
        return None
    device = next((t.device for t in [*tensors, *larger] if t.is_cuda), torch.device("cpu"))
    pieces = [torch.stack([_number(t, device) for t in tensors])] if tensors else []
    pieces += [t.reshape(-1).float().to(device) for t in larger]
    return copy_out(torch.cat(pieces).detach())


def _number(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """0-d float32 on ``device``, as nearly all are: constants made on the host and another GPU's
    layers are not."""
    if tensor.dim() == 0 and tensor.dtype == torch.float32 and tensor.device == device:
        return tensor
    return tensor.reshape(()).float().to(device)


class Measured:
    """Which of a sample's values are numbers, known once they are on the host."""

    def __init__(self, values: Mapping[str, Values]) -> None:
        pairs = [((s, m), v) for s, metrics in values.items() for m, v in metrics.items()]
        plain = [(key, v) for key, v in pairs if not isinstance(v, torch.Tensor)]
        self._plain = {key: v for key, v in plain if not math.isnan(v)}
        self._names = [key for key, v in pairs if isinstance(v, torch.Tensor)]
        tensors = [v for _, v in pairs if isinstance(v, torch.Tensor)]
        self._copied = gather(tensors, [])

    def numbers(self) -> dict[Key, float]:
        """The numbers by site and metric. Waits; called in the publishing thread."""
        if self._copied is None:
            return self._plain
        values = zip(self._names, self._copied.array().tolist(), strict=True)
        return {key: value for key, value in values if not math.isnan(value)} | self._plain


_RANK = "effective_rank"
"""Of attention; its matrices travel, their eigenvalues are taken in the publishing thread."""


class Layout:
    """Where in a frame a value stands. A metric's heads at a site stand one after the other."""

    def __init__(self, columns: Sequence[Column]) -> None:
        self.size = len(columns)
        self.places: dict[Key, int] = {}
        self.heads: dict[Key, slice] = {}
        for at, column in enumerate(columns):
            site, head = split(column.site)
            if head is None:
                self.places[site, column.metric] = at
            else:
                self.heads[site, column.metric] = slice(at - head, at + 1)

    def filled(
        self, numbers: Mapping[Key, float], by_head: Iterable[tuple[Key, np.ndarray]]
    ) -> np.ndarray:
        """A frame's values, float32 (columns,); NaN where there is none. What has no column, as
        other heads than the first forward had, is left out."""
        values = np.full(self.size, np.nan, dtype="<f4")
        for key, value in numbers.items():
            at = self.places.get(key)
            if at is not None:
                values[at] = value
        for key, found in by_head:
            place = self.heads.get(key)
            if place is not None and place.stop - place.start == len(found):
                values[place] = found
        return values


class FrameDraft:
    """A sampled step's values, to be finished in the publishing thread."""

    def __init__(self, step: int, measured: Measurement) -> None:
        self.step = step
        self.time = time.time()
        self.cost = 0.0
        self.skipped: list[Number] = []
        """As :attr:`probe.scalars.Row.skipped`; then there is no frame."""
        self._known: dict[Key, Number] = {}
        self._names: list[Key] = []
        tensors: list[torch.Tensor] = []
        for site, metrics in measured.values.items():
            for metric, value in metrics.items():
                if isinstance(value, torch.Tensor):
                    self._names.append((site, metric))
                    tensors.append(value)
                else:
                    self._known[site, metric] = value
        larger = [
            ((site, metric), value)
            for site, metrics in measured.heads.items()
            for metric, value in metrics.items()
            if isinstance(value, torch.Tensor)
        ]
        larger += [((site, _RANK), gram) for site, gram in measured.grams.items()]
        self._larger = [(key, tuple(value.shape)) for key, value in larger]
        self._copied = gather(tensors, [value for _, value in larger])

    def add(self, site: str, metric: str, value: Number) -> None:
        """A value that became known later, such as the loss the user logged."""
        self._known[site, metric] = value

    def frame(self, seq: int, rank: int, layout: Layout, history: History) -> Frame | None:
        """Wait for the copy and finish; None for a skipped step. In the publishing thread only."""
        if any(number(flag) for flag in self.skipped):
            return None
        found: dict[Key, float] = {k: number(v) for k, v in self._known.items()}
        by_head: list[tuple[Key, np.ndarray]] = []
        if self._copied is not None:
            array = self._copied.array()
            found.update(zip(self._names, array[: len(self._names)].tolist(), strict=True))
            at = len(self._names)
            for key, shape in self._larger:
                size = math.prod(shape)
                values = array[at : at + size].reshape(shape)
                at += size
                if key[1] == _RANK:
                    values = effective_rank(values)
                    found[key] = float(values.mean())
                by_head.append((key, values))
        history.finish(found)
        return Frame(
            seq=seq,
            rank=rank,
            step=self.step,
            time=self.time,
            values=layout.filled(found, by_head).tobytes(),
            cost=self.cost,
        )


def effective_rank(gram: np.ndarray) -> np.ndarray:
    """exp of the entropy of normalised singular values over their number, (h,).

    ``gram`` (h, p, p) = A Aᵀ of maps A (p, n); its eigenvalues are the squared singular values.
    """
    if not np.isfinite(gram).all():
        return np.full(len(gram), np.nan)
    singular = np.sqrt(np.clip(np.linalg.eigvalsh(gram.astype(np.float64)), 0.0, None))
    share = singular / np.maximum(singular.sum(axis=-1, keepdims=True), 1e-12)
    entropy = -(share * np.log(np.maximum(share, 1e-12))).sum(axis=-1)
    return np.exp(entropy) / gram.shape[-1]


class History:
    """What needs earlier samples: volatility and a clipped norm. Lives in the publishing thread."""

    def __init__(self) -> None:
        self._norms: deque[float] = deque(maxlen=20)

    def finish(self, found: dict[Key, float]) -> None:
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
