"""One sampled step: opened by a forward, read at the optimizer's step, ended as a frame draft."""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable
from typing import Any

import torch

from probe import absence
from probe.anatomy import ModelParts
from probe.batch import Batch
from probe.capture import Capturing
from probe.frames import FrameDraft, Measured
from probe.measure import kv_cache, parameters, training
from probe.measure.sampled import Values
from probe.measurement import measure_forward
from probe.stopwatch import Stopwatch

CACHE_EVERY = 4
"""Cached decoding is compared on one sample in so many: it runs the model four more times."""


class Sample:
    """What is known of the step in progress. Nothing of it is kept when the step is over.

    The calls come in this order: :meth:`open`, :meth:`forward_ended`, :meth:`before_step`,
    :meth:`decode`, :meth:`finish`; :meth:`drop` instead of any of them.
    """

    def __init__(self, parts: ModelParts, number: int) -> None:
        self._parts = parts
        self._watched: list[parameters.Watched] = []
        self._number = number
        self._capturing: Capturing | None = None
        self._values: dict[str, Values] = {}
        self._grams: dict[str, torch.Tensor] = {}
        self._ids: torch.Tensor | None = None
        self._rows: kv_cache.Rows | None = None
        self._moving: parameters.Moving | None = None
        self._own: Values = {}
        self.seen = absence.Seen()

    def open(
        self, batch: Batch, on_error: Callable[[BaseException], None], watch: Stopwatch
    ) -> None:
        """Install the hooks for the forward that is about to run."""
        self._capturing = Capturing(self._parts, batch, on_error, watch)

    def forward_ended(
        self, loss: torch.Tensor | None, logits: torch.Tensor | None, decodes: bool
    ) -> None:
        """Remove the hooks and measure what was captured. Later micro-batches change nothing."""
        if self._capturing is None:
            return
        capture, self._capturing = self._capturing.close(), None
        capture.loss = loss.detach() if loss is not None else None
        capture.logits = logits.detach() if logits is not None else None
        self._values, self._grams = measure_forward(self._parts, capture)
        self.seen = absence.facts(capture, self._parts)
        batch = capture.batch
        self._ids = capture.picked.take_ids(batch.ids) if batch.ids is not None else None
        if decodes and self._number % CACHE_EVERY == 0 and kv_cache.possible(self._parts):
            self._rows = kv_cache.keep_rows(batch.ids, batch.mask)

    def forward_values(self) -> Measured:
        """Which values the forward gave; those of the gradients and updates are still to come."""
        found = {site: dict(values) for site, values in self._values.items()}
        for site, gram in self._grams.items():
            found.setdefault(site, {})["effective_rank"] = gram.sum()
        return Measured(found)

    def before_step(self, optimizers: list[torch.optim.Optimizer]) -> None:
        """Gradients as the optimizer is about to use them, and samples of the weights."""
        self._watched = parameters.watched(self._parts)
        scale = _loss_scale(optimizers)
        self._moving = parameters.read_before(self._watched, self._ids, scale)
        norm = training.global_norm(self._parts, scale)
        self._own = training.coverage(self._parts, optimizers)
        if norm is not None:
            self._own["grad_norm"] = norm

    def decode(self) -> None:
        """Cached decoding against a fresh forward, where it is this sample's turn.

        Runs the model, so it may raise whatever the model raises. Not under ``quiet``: silencing
        dropout needs a torch function mode.
        """
        if self._rows is not None:
            self._add(kv_cache.measure(self._parts, self._rows))

    def finish(
        self,
        step: int,
        optimizers: list[torch.optim.Optimizer],
        rate: float,
        peak_rate: float,
        extra: dict[str, Values],
    ) -> FrameDraft | None:
        """Updates and training dynamics; None where no optimizer step was seen to begin."""
        if self._moving is None:
            return None
        rates = training.rates(optimizers)
        self._add(parameters.read_after(self._watched, self._moving, rates))
        layers = self._parts.layers
        ends = [layers[at].site("ffn") for at in (0, -1)] if layers else ["", ""]
        self._own |= training.gradients(self._values, *ends)
        self._own |= {"learning_rate": rate, "memory": _peak_memory()}
        self._add({"training": self._own})
        self._add(training.decay_by_site(self._parts, training.decays(optimizers), peak_rate))
        self._add(extra)
        return FrameDraft(step, self._values, self._grams)

    def drop(self) -> None:
        """Take off what hooks are still there: the forward raised, or the probe goes off."""
        if self._capturing is not None:
            self._capturing.remove()
            self._capturing = None

    def _add(self, found: dict[str, Values]) -> None:
        for site, values in found.items():
            self._values.setdefault(site, {}).update(values)


def _loss_scale(optimizers: list[torch.optim.Optimizer]) -> Any:
    """The loss scale that fused optimizers under a GradScaler divide by inside their step."""
    for optimizer in optimizers:
        scale = getattr(optimizer, "grad_scale", None)
        if isinstance(scale, torch.Tensor):
            return scale
    return None


def _peak_memory() -> float:
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return float(torch.cuda.max_memory_allocated())
    # Linux counts in KiB, macOS in bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)
