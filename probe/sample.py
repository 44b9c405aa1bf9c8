"""One sampled step: opened by a forward, read at the optimizers' steps, ended as a frame draft."""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable

import torch

from probe import absence, sharded
from probe.anatomy import ModelParts
from probe.batch import Batch
from probe.capture import Capturing
from probe.frames import FrameDraft, Measured
from probe.gradients import Gradients
from probe.measure import parameters, router, training
from probe.measure.sampled import Values
from probe.measurement import Measurement, measure_forward
from probe.optimizers import loss_scale, parameters_of
from probe.reruns import Reruns, Waiting, foreseen
from probe.routing import Routed
from probe.shards import is_flattened
from probe.stopwatch import Stopwatch

OnError = Callable[[BaseException], None]


class Sample:
    """What is known of the step in progress. Nothing of it is kept when the step is over but a few
    of its weights, in ``last``.

    The calls come in this order: :meth:`open`, :meth:`forward_ended`, :meth:`before_step` for each
    optimizer, :meth:`rerun`, :meth:`finish`; :meth:`drop` instead of any of them. Where the
    forward cannot be seen, the first two are left out.
    """

    def __init__(
        self,
        parts: ModelParts,
        number: int,
        optimizers: list[torch.optim.Optimizer],
        last: parameters.LastWeights | None = None,
    ) -> None:
        self._parts = parts
        self._last = parameters.LastWeights() if last is None else last
        self._number = number
        self._optimizers = optimizers
        self._watched: list[parameters.Watched] = []
        self._single: frozenset[str] = frozenset()
        self._capturing: Capturing | None = None
        self._measured = Measurement()
        self._ids: torch.Tensor | None = None
        self._waiting: Waiting | None = None
        self._routing: dict[str, Routed] = {}
        self._foreseen: Values = {}
        self._moving: parameters.Moving | None = None
        self._gradients = Gradients()
        self._read: set[int] = set()
        self._stepping: set[int] = set()
        self.seen = absence.Seen()

    def open(self, batch: Batch, on_error: OnError, watch: Stopwatch) -> None:
        """Install the hooks for the forward that is about to run."""
        self._capturing = Capturing(self._parts, batch, on_error, watch)

    @property
    def interrupted(self) -> bool:
        """Asked when a forward begins: the one before never ended, as after Ctrl-C."""
        return self._capturing is not None

    def forward_ended(
        self, loss: torch.Tensor | None, logits: torch.Tensor | None, reruns: Reruns | None
    ) -> None:
        """Remove the hooks and measure what was captured. Later micro-batches change nothing.

        ``reruns``: None where the model is not to run again.
        """
        if self._capturing is None:
            return
        capture, self._capturing = self._capturing.close(), None
        capture.loss = loss.detach() if loss is not None else None
        capture.logits = logits.detach() if logits is not None else None
        with sharded.unread(self._parts.root) as unknown:
            self._measured = measure_forward(self._parts, capture)
        self._measured.values = sharded.measured(self._measured.values, self._parts, unknown)
        self.seen = absence.facts(capture, self._parts)
        self._routing = capture.routing
        lengths = {s.name: capture.of_stack(s.name)[1].length for s in self._parts.stacks}
        self._single = frozenset(name for name, length in lengths.items() if length == 1)
        batch = capture.batch
        self._ids = capture.picked.take_ids(batch.ids) if batch.ids is not None else None
        if reruns is None:
            return
        if self._number == 0:
            self.seen, self._foreseen = foreseen(self._parts, capture, self.seen)
        self._waiting = reruns.keep(self._parts, capture, self._number)

    def forward_values(self) -> Measured:
        """Which values the forward gave; those of the gradients and updates are still to come."""
        found = {site: dict(values) for site, values in self._measured.values.items()}
        for site, gram in self._measured.grams.items():
            found.setdefault(site, {})["effective_rank"] = gram.sum()
        found.setdefault("output", {}).update(self._foreseen)
        return Measured(found)

    def before_backward(self, on_error: OnError) -> None:
        """Where no optimizer is known: the weights may move while the backward runs."""
        if self._moving is None:
            self._keep_weights()
            self._gradients.listen(self._parts.root.parameters(), on_error)

    def before_step(self, place: int | None) -> None:
        """Gradients as one optimizer is about to use them, or all of them (``place`` None).

        At the first of a step also samples of the weights, and the gradients that no optimizer
        will use. Those of the others wait: a scaler may not have unscaled them yet.
        """
        self._gradients.remove()
        own = list(self._parts.root.parameters())
        for site, routed in self._routing.items():
            share = router.untrained(routed)
            if share is not None:
                self._add({site: {"untrained": share}})
        if self._moving is None:
            self._keep_weights()
        if not self._read:
            used = {id(p) for o in self._optimizers for p in parameters_of(o)}
            rest = [p for p in own if id(p) not in used]
            # What was heard in the backward may have been cleared or zeroed since.
            self._take([p for p in rest if not self._gradients.reached(p)], None)
        if place is not None:
            optimizer = self._optimizers[place]
            used = {id(p) for p in parameters_of(optimizer)}
            self._take([p for p in own if id(p) in used], loss_scale(optimizer))
            self._stepping.add(place)

    def rerun(self) -> None:
        """Run the model again for what is this sample's turn. Not under ``quiet``."""
        for found in self._waiting.run() if self._waiting is not None else ():
            self._add(found)

    def finish(
        self, step: int, rate: float, peak_rate: float, extra: dict[str, Values]
    ) -> FrameDraft | None:
        """Updates and training dynamics; None where no optimizer step was seen to begin."""
        if self._moving is None:
            return None
        optimizers, moving = self._optimizers, self._moving
        parameters.read_gradients(self._watched, moving, self._gradients)
        for place, optimizer in enumerate(optimizers):
            if place not in self._stepping:
                moving.resting.update(id(p) for p in parameters_of(optimizer))
        rates = training.rates(optimizers)
        plain = training.moved_plainly(optimizers)
        self._add(parameters.read_after(self._watched, moving, rates, plain, self._last))
        own = training.coverage(self._parts, optimizers, self._gradients)
        total = self._gradients.total()
        if total is not None and not is_flattened(self._parts.root):
            own["grad_norm"] = total
        layers = self._parts.layers
        ends = [layers[at].site("ffn") for at in (0, -1)] if layers else ["", ""]
        own |= training.gradients(self._measured.values, *ends)
        limited = self._gradients.limited()
        if limited is not None:
            own["grad_limited"] = limited
        own |= {"learning_rate": rate, "memory": _peak_memory()}
        self._add({"training": own})
        peaks = training.peak_rates(optimizers, rate, peak_rate)
        self._add(training.decay_by_site(self._parts, training.decays(optimizers), peaks))
        self._add(extra)
        return FrameDraft(step, self._measured)

    def observed(self, step: int, extra: dict[str, Values]) -> FrameDraft:
        """The frame of a forward that trains nothing."""
        self._add({"training": {"memory": _peak_memory()}})
        self._add(extra)
        return FrameDraft(step, self._measured)

    def drop(self) -> None:
        """Take off what hooks are still there: the forward raised, or the probe goes off."""
        self._gradients.remove()
        if self._capturing is not None:
            self._capturing.remove()
            self._capturing = None

    def _keep_weights(self) -> None:
        self._watched = parameters.watched(self._parts, self._single)
        self._moving = parameters.keep_weights(self._watched, self._ids)

    def _take(self, found: list[torch.nn.Parameter], scale: torch.Tensor | None) -> None:
        fresh = [p for p in found if id(p) not in self._read]
        self._read.update(id(p) for p in fresh)
        self._gradients.read(fresh, scale)

    def _add(self, found: dict[str, Values]) -> None:
        for site, values in found.items():
            self._measured.values.setdefault(site, {}).update(values)


def _peak_memory() -> float:
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return float(torch.cuda.max_memory_allocated())
    # Linux counts in KiB, macOS in bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)
