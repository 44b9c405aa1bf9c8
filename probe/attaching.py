"""``attach``: joins a model and its optimizers, samples their steps, and hands frames on.

A sample is armed at attach and after each step. It opens with the first forward in training mode
with gradients, reads gradients in the optimizers' step pre-hooks, and closes when the step is over
(:mod:`probe.stepping`). Steps that are not sampled cost a counter and the copy of a scalar loss.
"""

from __future__ import annotations

import atexit
import contextlib
import math
import os
import sys
import threading
import time
import traceback
import weakref
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from probe import absence, crash
from probe.anatomy import ModelParts, find
from probe.batch import read_output
from probe.between import Between
from probe.budget import Budget
from probe.capture import batch_of
from probe.controls import Controls
from probe.directories import trace_path
from probe.frames import FrameDraft, Measured
from probe.header import make_header, with_reasons
from probe.listening import Listening
from probe.notices import Notices, in_words
from probe.optimizers import given, held_back, highest_rate, parameters_of
from probe.outlet import Outlet
from probe.overrides import Overrides, find_with
from probe.pausing import Pause
from probe.publisher import Publisher
from probe.quiet import quiet
from probe.ranks import ranks
from probe.registry import new_entry
from probe.sample import Sample
from probe.scalars import Number
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
) -> Probe:
    """Watch ``model`` train. Returns at once; nothing it does afterwards raises or blocks.

    ``optimizer`` tells the steps: one, or a list of several (see :mod:`probe.stepping`); without
    one, call ``p.step()`` after each. ``run``: a name for the monitor. ``endpoint``: where to
    listen (default: a socket of this user's; False: nowhere). ``trace``: file to record to
    (default: in the user's state directory; False: none). ``every``: sample each so many steps
    instead of by ``budget``, the share of training time the probe may take (None: no limit).
    ``anatomy``: paths of parts that are found wrongly, by role, e.g. ``{"head": "lm_head",
    "expand": "mlp.fc_in", "type_embedding": None}``; those of blocks from the block
    (``defaultpp-monitor doctor --model`` prints what is found). Raises ValueError where ``every``
    is not one of these, or ``anatomy`` names an unknown role or path.
    """
    where: dict[str, Any] = {"run": run, "endpoint": endpoint, "trace": trace}
    return Probe(model, optimizer, every=every, budget=budget, anatomy=anatomy, **where)


class Probe:
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
    ) -> None:
        if every != "auto" and (not isinstance(every, int) or every < 1):
            raise ValueError(f"every must be 'auto' or a number of steps >= 1, not {every!r}")
        found = find_with(model, anatomy) if anatomy else None
        self._lock = threading.Lock()
        self._notices = Notices()
        self._off = False
        self._closed = False
        self._pid = os.getpid()
        self._stopwatch = Stopwatch()
        self._budget = Budget(None if every == "auto" else every, budget)
        self._settings = {"every": str(every), "budget": str(budget)}
        self._step_began = time.perf_counter()
        self._between = Between()
        self._sites: tuple[Site, ...] = ()
        self._samples = 0
        self._peak_rate = 0.0
        self._sample: Sample | None = None
        self._wanted = True
        self._decodes = True
        self._recomputing = False
        self._hooks_tell = False
        self._crash: dict[str, str] | None = None
        # Exceptions that were there before: an earlier failure after which this one is a new try.
        self._stale = {id(e) for e in (crash.uncaught(), sys.exc_info()[1]) if e is not None}
        self._optimizers = given(optimizer)
        self._stepping = Stepping(len(self._optimizers))
        rank, world = ranks()
        entry = new_entry(run or type(model).__name__.lower(), rank=rank, world_size=world)
        self._pause = Pause(world)
        self.run, self.name, self._entry = entry.run, entry.name, entry
        self._trace_path = trace_path(trace, entry.run, self._notices)
        self._controls = Controls(self._pause, self._budget)
        self._publisher = Publisher(
            entry,
            endpoint=endpoint,
            trace_path=self._trace_path,
            on_control=self._controls.control,
            status=self._controls.status,
            on_error=self._notices.transport,
        )
        self._outlet = Outlet(self._publisher, rank)
        self._forgotten = weakref.finalize(self, self._publisher.leave)
        self._forgotten.atexit = False
        me = weakref.ref(self)  # what runs at exit must keep no model alive until then
        self._at_exit = lambda: None if (p := me()) is None else p._exit()
        try:
            self._publisher.start()
            atexit.register(self._at_exit)
            self._parts = found if found is not None else find(model)
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
                kept = value.detach().clone() if isinstance(value, torch.Tensor) else float(value)
                self._outlet.row.values[name] = kept
        except Exception as error:
            self._fail(error)

    def validation(self, **scalars: float) -> None:
        """Results of a validation, e.g. ``accuracy=0.9, loss=0.3``; shown with the next sample."""
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

    def close(self, reason: str = "closed") -> None:
        """Take every hook off, write the end of the trace, close the sockets."""
        if self._closed or self._foreign():
            return
        self._closed = True
        try:
            # Closed in a "finally": the exception is on its way out.
            self._see_crash(sys.exc_info()[1], None)
            if not self._off:
                self._last_words()
        except Exception as error:
            self._fail(error)
        self._off = self._controls.off = True
        self._detach()
        self._publisher.close(reason)
        self._forgotten.detach()
        atexit.unregister(self._at_exit)

    def __enter__(self) -> Probe:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: Any, tb: Any) -> None:
        self._crash = None  # one that was raised and caught inside did not leave the training
        self._see_crash(error, tb)
        self.close("closed" if kind is None else f"stopped by {kind.__name__}")

    # -- the model's forward ---------------------------------------------------------------------

    def forward_begins(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        """Called by the model's hook."""
        if self._idle() or not (module.training and torch.is_grad_enabled()):
            return
        try:
            # A checkpointed model runs again inside the backward: that is no further micro-batch.
            inside = torch._C._current_graph_task_id() != -1
            self._recomputing = inside and self._outlet.row.began
            if self._recomputing:
                return
            self._end_of_last()
            with self._stopwatch:
                self._crash = None  # whatever it was, the training has got over it
                self._outlet.settle()
                self._outlet.row.began = True
                if self._sample is not None and self._sample.interrupted:
                    self._drop_sample()
                if self._wanted and self._sample is None:
                    self._open(args, kwargs)
        except Exception as error:
            self._fail(error)

    def forward_ended(self, module: nn.Module, args: Any, kwargs: Any, out: Any) -> None:
        """Called by the model's hook, also where the forward raised: then without an output."""
        if self._idle() or not (module.training and torch.is_grad_enabled()):
            return
        try:
            if self._recomputing:
                self._recomputing = False
                return
            with self._stopwatch:
                if out is None:  # what a forward that raised left behind goes
                    self._drop_sample()
                    self._see_crash(sys.exc_info()[1], None)
                    return
                loss, logits = read_output(out)
                if loss is not None:
                    self._outlet.row.losses.append(loss.detach().clone())
                if self._sample is not None:
                    with quiet():
                        self._sample.forward_ended(loss, logits, self._decodes)
                        if not self._optimizers:
                            self._sample.before_backward(self._fail)
                    if not self._outlet.opened:
                        self._publish_header()
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
        self._sample = Sample(parts, self._samples, self._optimizers)
        if batch is not None and batch.size > 0:
            self._sample.open(batch, self._fail, self._stopwatch)

    def _publish_header(self) -> None:
        parts = self._parts
        assert parts is not None and self._listening is not None
        compiled = self._listening.compiled
        header = make_header(self._entry, parts, self._settings, compiled=compiled)
        self._sites = header.anatomy.sites
        sample = self._sample
        values = sample.forward_values() if sample is not None else Measured({})
        seen = sample.seen if sample is not None else absence.Seen()
        options = {"compiled": compiled, "optimized": bool(self._optimizers)}
        # In the publishing thread, which may wait for the values.
        self._outlet.header(
            header, lambda: with_reasons(header, parts, seen, values.keys(), **options)
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
        if self._idle():
            return
        try:
            with self._stopwatch:
                if self._sample is None and self._wanted and not self._outlet.row.began:
                    self._open_unseen()
                if self._sample is not None:
                    with quiet():
                        self._sample.before_step(place)
        except Exception as error:
            self._fail(error)

    def _open_unseen(self) -> None:
        """The forward ran out of sight: gradients and updates are seen all the same."""
        assert self._parts is not None
        self._outlet.settle()
        self._sample = Sample(self._parts, self._samples, self._optimizers)
        if not self._outlet.opened:
            self._publish_header()

    def _step_over(self) -> None:
        if self._idle():
            return
        try:
            now = time.perf_counter()
            with self._stopwatch:
                row = self._outlet.row
                unseen = not row.began
                rate = highest_rate(self._optimizers)
                row.values.setdefault("learning_rate", rate)
                if not math.isnan(rate):
                    self._peak_rate = max(self._peak_rate, rate)
                frame = None if self._sample is None else self._close_sample(self._sample, rate)
                if unseen and self._listening is not None:
                    self._listening.follow()
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
        try:
            sample.decode()
        except Exception as error:
            # The model's own cache path failed: that is not the probe's end.
            self._decodes = False
            self.event("note", f"the cache is not compared: {type(error).__name__}: {error}")
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

    def _exit(self) -> None:
        """The process ends without a close."""
        if self._foreign():
            return
        self._see_crash(crash.uncaught(), None)
        self.close("the training process ended")

    # -- the probe's failure ---------------------------------------------------------------------

    def _idle(self) -> bool:
        return self._off or self._foreign()

    def _foreign(self) -> bool:
        """In a forked child the run goes on elsewhere."""
        return os.getpid() != self._pid

    def _fail(self, error: BaseException, told: bool = False) -> None:
        """The probe turns itself off, says so once, and the training goes on."""
        with self._lock:
            if self._off:
                return
            text = f"the probe turned itself off: {in_words(error)}"
            with contextlib.suppress(Exception):
                self._outlet.event("probe_off", text)
            self._off = self._controls.off = True
        if not told:
            self._notices.tell(f"{text}; training goes on")
        if os.environ.get("DEFAULTPP_DEBUG"):
            traceback.print_exception(type(error), error, error.__traceback__)
        self._detach()

    def _detach(self) -> None:
        """Take every hook off and let go of the model."""
        if self._listening is not None:
            self._listening.remove()
        if self._skips is not None:
            self._skips.remove()
        self._drop_sample()
        self._listening = self._skips = self._parts = None
        self._optimizers = []


__all__ = ["Probe", "attach"]
