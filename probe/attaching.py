"""``attach``: joins a model and its optimizers, samples their steps, and hands frames on.

A sample is armed at attach and after each step. It opens with the first forward in training mode
with gradients, reads gradients in the optimizers' step pre-hooks, and closes when the step is over
(:mod:`probe.stepping`). Steps that are not sampled cost a counter and the copy of a scalar loss.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from probe import absence, crash
from probe.anatomy import ModelParts, find, name_of
from probe.batch import read_output
from probe.between import Between
from probe.budget import Budget
from probe.capture import batch_of
from probe.controls import Controls
from probe.directories import trace_path
from probe.following import Following
from probe.frames import FrameDraft, Measured
from probe.header import make_header, with_reasons
from probe.listening import Listening
from probe.looking_on import LookingOn
from probe.measure.parameters import LastWeights
from probe.optimizers import given, held_back, highest_rate, parameters_of
from probe.outlet import Outlet
from probe.overrides import Overrides, find_with
from probe.pausing import Pause
from probe.publisher import Publisher
from probe.quiet import quiet
from probe.ranks import ranks, shared_run_id
from probe.registry import new_entry
from probe.replacing import take_place
from probe.reruns import Reruns
from probe.sample import Sample
from probe.scalars import Number, kept
from probe.schema import Site
from probe.skipping import Skips
from probe.stepping import Stepping
from probe.stopwatch import Stopwatch


def attach(
    model: nn.Module,
    optimizer: Any = None,
    *,
    run: str | None = None,
    endpoint: str | Literal[False] | None = None,
    trace: str | os.PathLike[str] | Literal[False] | None = None,
    every: int | Literal["auto"] = "auto",
    budget: float | None = 0.02,
    anatomy: Overrides | None = None,
    first_step: int = 0,
) -> Probe:
    """Watch ``model`` train. Returns at once; nothing it does afterwards raises or blocks.

    ``optimizer`` tells the steps: one, or a list of several (see :mod:`probe.stepping`); without
    one, call ``p.step()`` after each. ``run``: a name for the monitor. ``endpoint``: where to
    listen (default: a socket of this user's; False: nowhere). ``trace``: file to record to
    (default: in the user's state directory; False: none). ``every``: sample each so many steps
    instead of by ``budget``, the share of training time the probe may take (None: no limit).
    ``anatomy``: paths of parts that are found wrongly, by role, e.g. ``{"head": "lm_head",
    "expand": "mlp.fc_in", "type_embedding": None}``; those of blocks from the block
    (``defaultpp-monitor doctor --model`` prints what is found). ``first_step``: how many steps were
    taken before, where a training is resumed. An earlier probe of the same model is closed. Raises
    ValueError where ``every`` or ``first_step`` is not one of these, or ``anatomy`` names an
    unknown role or path.
    """
    where: dict[str, Any] = {"run": run, "endpoint": endpoint, "trace": trace}
    how: dict[str, Any] = {"every": every, "budget": budget, "first_step": first_step}
    return Probe(model, optimizer, anatomy=anatomy, **how, **where)


class Probe(LookingOn):
    """A running probe. Safe to use as a context manager; closing twice does nothing.

    It lives as long as the model, whose hooks hold it; after :meth:`close` neither holds the other.
    """

    _listening: Listening | None = None
    _skips: Skips | None = None
    _parts: ModelParts | None = None

    def __init__(
        self,
        model: nn.Module,
        optimizer: Any,
        *,
        run: str | None,
        endpoint: str | Literal[False] | None,
        trace: str | os.PathLike[str] | Literal[False] | None,
        every: int | Literal["auto"],
        budget: float | None,
        anatomy: Overrides | None = None,
        first_step: int = 0,
    ) -> None:
        if every != "auto" and (not isinstance(every, int) or every < 1):
            raise ValueError(f"every must be 'auto' or a number of steps >= 1, not {every!r}")
        if first_step < 0:
            raise ValueError(f"first_step must be a number of steps >= 0, not {first_step!r}")
        found = find_with(model, anatomy) if anatomy else None
        super().__init__()
        self._stopwatch = Stopwatch()
        self._budget = Budget(None if every == "auto" else every, budget)
        self._settings = {"every": str(every), "budget": str(budget)}
        self._step_began = time.perf_counter()
        self._between = Between()
        self._sites: tuple[Site, ...] = ()
        self._samples = 0
        self._weights = LastWeights()
        self._peak_rate = 0.0
        self._sample: Sample | None = None
        self._wanted = True
        self._reruns = Reruns()
        self._recomputing = False
        self._hooks_tell = False
        self._crash: dict[str, str] | None = None
        # Exceptions that were there before: an earlier failure after which this one is a new try.
        self._stale = {id(e) for e in (crash.uncaught(), sys.exc_info()[1]) if e is not None}
        self._optimizers = given(optimizer)
        self._stepping = Stepping(len(self._optimizers))
        rank, world = ranks()
        name = run or name_of(model)
        entry = new_entry(name, run=shared_run_id(world), rank=rank, world_size=world)
        self._pause = Pause(world)
        self.run, self.name, self._entry = entry.run, entry.name, entry
        self._trace_path = trace_path(trace, entry.run, self._notices, rank)
        self._controls = Controls(self._pause, self._budget)
        self._publisher = Publisher(
            entry,
            endpoint=endpoint,
            trace_path=self._trace_path,
            on_control=self._controls.control,
            status=self._controls.status,
            on_error=self._notices.transport,
        )
        self._outlet = Outlet(self._publisher, rank, first_step)
        try:
            take_place(self, model, run)
            self._begin(self._publisher)
            self._parts = found if found is not None else find(model)
            if not self._optimizers:
                self._following = Following(self._parts, self._fail, self._stopwatch)
            self._listening = Listening(model, self._optimizers, self)
            outlet = self._outlet
            self._skips = Skips(
                [parameters_of(o) for o in self._optimizers], lambda: len(outlet.row.losses)
            )
        except Exception as error:
            self._fail(error)

    # -- what a training script calls ------------------------------------------------------------

    @property
    def trace(self) -> Path | None:
        """Where the run is recorded; None where it is not."""
        return self._trace_path

    def log(self, **scalars: Number) -> None:
        """Scalars of the step just done, or of the one in progress once its forward has begun.

        Numbers or 0-d tensors; ``loss`` takes precedence over the loss the model returned.
        """
        if self._idle():
            return
        try:
            for name, value in scalars.items():
                number = kept(value) if isinstance(value, torch.Tensor) else float(value)
                self._outlet.row.values[name] = number
        except Exception as error:
            self._fail(error)

    def validation(self, **scalars: float) -> None:
        """Results of a validation: ``accuracy``, ``loss``, ``perplexity``, ``calibration_error``
        (see :func:`probe.calibration_error`) or any other; shown with the next sample."""
        if self._idle():
            return
        try:
            found = {name: float(value) for name, value in scalars.items()}
            self._between.validated(found)
            self.event("validation", ", ".join(f"{n} {v:.4g}" for n, v in found.items()))
        except Exception as error:
            self._fail(error)

    def event(self, kind: str, text: str) -> None:
        """Mark the current step with a sentence that the monitor shows on its charts."""
        if self._idle():
            return
        try:
            self._outlet.event(kind, text)
        except Exception as error:
            self._fail(error)

    def step(self) -> None:
        """Tell that an optimizer step was taken, where no optimizer hook can tell.

        Call it after the step. Where a hook has told already, this does nothing.
        """
        if self._hooks_tell and not self._stepping.begun:
            self._hooks_tell = False
            return
        if not self._stepping.begun:
            self._before_step(None)
        self._step_over()

    # -- the model's forward ---------------------------------------------------------------------

    def forward_begins(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        """Called by the model's hook."""
        if self._idle():
            return
        if not (module.training and torch.is_grad_enabled()):
            self._look_on(module, args, kwargs)
            return
        try:
            self._following = None  # it trains
            # A checkpointed model runs again inside the backward: that is no further micro-batch.
            inside = torch._C._current_graph_task_id() != -1
            self._recomputing = inside and self._outlet.row.began
            if self._recomputing:
                return
            self._end_of_last()
            self._stopwatch.start()
            self._crash = None  # whatever it was, the training has got over it
            self._outlet.settle()
            self._outlet.row.began = True
            if self._sample is not None and self._sample.interrupted:
                self._drop_sample()
            if self._wanted and self._sample is None:
                self._open(args, kwargs)
            self._stopwatch.stop()
        except Exception as error:
            self._fail(error)

    def forward_ended(self, module: nn.Module, args: Any, kwargs: Any, out: Any) -> None:
        """Called by the model's hook, also where the forward raised: then without an output."""
        if self._idle():
            return
        if not (module.training and torch.is_grad_enabled()):
            self._looked_on(out)
            return
        try:
            if self._recomputing:
                self._recomputing = False
                return
            if out is None:  # what a forward that raised left behind goes
                self._drop_sample()
                self._see_crash(sys.exc_info()[1], None)
                return
            self._stopwatch.start()
            loss, logits = read_output(out)
            if loss is not None:
                self._outlet.row.losses.append(kept(loss))
            if self._sample is not None:
                with quiet():
                    self._sample.forward_ended(loss, logits, self._reruns)
                    if not self._optimizers:
                        self._sample.before_backward(self._fail)
                if not self._outlet.opened:
                    self._publish_header()
            self._stopwatch.stop()
        except Exception as error:
            self._fail(error)

    def _end_of_last(self) -> None:
        """A forward begins: whether by that the step before is over."""
        before = self._skips.before_forward() if self._skips is not None else None
        if self._stepping.begun:
            # If some were held back or sat it out, others have stepped: no skipped step.
            self._step_over()
        elif before is not None:
            self._skipped(before)

    def _skipped(self, losses: int) -> None:
        """The step under way, with its first ``losses`` micro-batches, ended without a step.

        It counts as one, as it does in the script's own counter and under fused optimizers. What
        was measured in it is not handed on.
        """
        row = self._outlet.row
        later, row.losses = row.losses[losses:], row.losses[:losses]
        row.skipped.append(1.0)
        self._drop_sample()
        self._step_over()
        self._outlet.row.losses, self._outlet.row.began = later, bool(later)

    def _open(self, args: Any, kwargs: Any) -> None:
        parts = self._parts
        assert parts is not None and self._listening is not None
        compiled = self._listening.compiled
        batch = None if compiled else batch_of(parts, args, kwargs)
        if batch is not None:
            self._outlet.row.shares = batch.items is not None
        self._sample = Sample(parts, self._samples, self._optimizers, self._weights)
        if batch is not None and batch.size > 0:
            self._sample.open(batch, self._fail, self._stopwatch)

    def _publish_header(self) -> None:
        parts = self._parts
        assert parts is not None and self._listening is not None
        compiled = self._listening.compiled
        sample = self._sample
        values = sample.forward_values() if sample is not None else Measured({})
        seen = sample.seen if sample is not None else absence.Seen()
        given = self._settings, self._optimizers, seen
        header = make_header(self._entry, parts, *given, compiled=compiled)
        self._sites = header.anatomy.sites
        options = {"compiled": compiled, "optimized": bool(self._optimizers)}
        options["trained"] = self._following is None
        # In the publishing thread, which may wait for the values.
        self._outlet.header(
            header, lambda: with_reasons(header, parts, seen, values.numbers(), **options)
        )
        self.event("attached", f"watching {header.anatomy.model}, {header.anatomy.layers} layers")

    # -- the optimizers' steps -------------------------------------------------------------------

    def step_begins(self, optimizer: int) -> None:
        """Called by an optimizer's hook."""
        if self._stepping.begins(optimizer):
            self._step_over()
        elif self._skips is not None and not self._stepping.begun:
            before = self._skips.before_step()
            if before is not None:
                self._skipped(before)
        self._before_step(optimizer)

    def stepped(self, optimizer: int) -> None:
        """Called by an optimizer's hook."""
        if self._idle():
            return
        try:
            self._hooks_tell = True
            held = held_back(self._optimizers[optimizer])
            if held is not None:
                self._outlet.row.skipped.append(held)
            if self._stepping.stepped(optimizer):
                self._step_over()
        except Exception as error:
            self._fail(error)

    def _before_step(self, place: int | None) -> None:
        if (self._sample is None and not self._wanted) or self._idle():
            return
        try:
            self._stopwatch.start()
            if self._sample is None and self._wanted and not self._outlet.row.began:
                self._open_unseen()
            if self._sample is not None:
                with quiet():
                    self._sample.before_step(place)
            self._stopwatch.stop()
        except Exception as error:
            self._fail(error)

    def _open_unseen(self) -> None:
        """The forward ran out of sight: gradients and updates are seen all the same."""
        assert self._parts is not None
        self._outlet.settle()
        self._sample = Sample(self._parts, self._samples, self._optimizers, self._weights)
        if not self._outlet.opened:
            if self._listening is not None:
                self._listening.follow()  # a trainer may have compiled the model it was given
            self._publish_header()

    def _step_over(self) -> None:
        if self._idle():
            return
        try:
            now = self._stopwatch.start()
            row = self._outlet.row
            rate = highest_rate(self._optimizers)
            row.values.setdefault("learning_rate", rate)
            self._peak_rate = max(self._peak_rate, rate)
            frame = None if self._sample is None else self._close_sample(self._sample, rate)
            if not row.began and self._listening is not None:
                self._listening.follow()
            self._stopwatch.stop()
            self._count(now - self._step_began, frame)
            if self._publisher.failed is not None:  # which was told when it happened
                self._fail(self._publisher.failed, told=True)
            elif self._pause.held:
                self._hold()
            self._wanted = self._budget.wants(self._outlet.row.step)
            self._step_began = time.perf_counter()
        except Exception as error:
            self._fail(error)

    def _close_sample(self, sample: Sample, rate: float) -> FrameDraft | None:
        sample.rerun()
        for text in self._reruns.told():
            self.event("note", text)
        step, extra = self._outlet.row.step, self._between.take()
        with quiet():
            return sample.finish(step, rate, self._peak_rate, extra)

    def _count(self, seconds: float, frame: FrameDraft | None) -> None:
        """Account for the step that is over and begin the next."""
        outlet, spent = self._outlet, self._stopwatch.take()
        outlet.row.values.setdefault("step_time", seconds)
        self._between.step_took(seconds - spent)
        self._budget.step_done(outlet.row.step, seconds - spent, spent, frame is not None)
        if frame is not None:
            frame.cost = spent
            self._samples += 1
        outlet.step_done(frame)
        self._controls.step = outlet.row.step
        self._stepping.over()
        if self._skips is not None:
            self._skips.over()
        if self._sample is not None:
            self._drop_sample()

    def _hold(self) -> None:
        self._outlet.settle()
        self._outlet.flush(force=True)
        self.event("paused", "training paused by a monitor")
        self.event("resumed", f"training goes on after {self._pause.wait():.1f} s")

    def _drop_sample(self) -> None:
        """Let go of everything that belonged to the step."""
        if self._sample is not None:
            self._sample.drop()
        self._sample = None

    # -- the training's failure ------------------------------------------------------------------

    def _see_crash(self, error: BaseException | None, tb: Any) -> None:
        """Keep in words what is about to leave the training; told when it has."""
        if self._idle() or not crash.is_crash(error) or id(error) in self._stale:
            return
        try:
            parts = self._parts
            if parts is None:
                return
            if not self._outlet.opened:
                self._publish_header()
            self._crash = crash.describe(error, parts.paths, self._sites, tb)
        except Exception as failure:
            self._fail(failure)

    def _last_words(self) -> None:
        if self._crash is not None:
            self._outlet.event("crash", crash.sentence(self._crash), self._crash)
        elif self._stepping.begun:
            self._step_over()
        self._outlet.settle()
        self._outlet.flush(force=True)

    def _detach(self) -> None:
        """Take every hook off and let go of the model."""
        if self._listening is not None:
            self._listening.remove()
        if self._skips is not None:
            self._skips.remove()
        self._drop_sample()
        if self._following is not None:
            self._following.drop()
        self._listening = self._skips = self._parts = self._following = None
        self._optimizers = []


__all__ = ["Probe", "attach"]
