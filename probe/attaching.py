"""``attach``: joins a model and its optimizer, samples their steps, and hands frames on.

A sample is armed at attach and after each optimizer step. It opens with the first forward in
training mode with gradients, reads gradients in the optimizer's step pre-hook, and closes in the
post-hook. Steps that are not sampled cost a counter and the copy of a scalar loss.
"""

from __future__ import annotations

import math
import os
import statistics
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import msgspec
import torch
from torch import nn

from probe import absence
from probe.anatomy import find
from probe.batch import read_output
from probe.budget import Budget
from probe.capture import batch_of
from probe.directories import traces_dir
from probe.frames import FrameDraft, History, Measured
from probe.header import make_header, with_reasons
from probe.measure import training
from probe.measure.sampled import Values
from probe.overrides import Overrides, find_with
from probe.pausing import Pause
from probe.publisher import Publisher
from probe.quiet import quiet
from probe.registry import new_entry
from probe.sample import Sample
from probe.scalars import Number, Row, pack
from probe.schema import Column, Done, Event, Header, Record
from probe.status import Status
from probe.stopwatch import Stopwatch

FLUSH_SECONDS = 0.25


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

    ``optimizer`` tells the steps; without one, call ``p.step()`` after each. ``run``: a name for
    the monitor. ``endpoint``: where to listen (default: a socket of this user's; False: nowhere).
    ``trace``: file to record to (default: in the user's state directory; False: none).
    ``every``: sample each so many steps instead of by ``budget``, the share of training time the
    probe may take (None: no limit). ``anatomy``: paths of parts that are found wrongly, by role,
    e.g. ``{"head": "lm_head", "expand": "mlp.fc_in", "type_embedding": None}``; those of blocks
    from the block (``defaultpp-monitor doctor --model`` prints what is found). Raises ValueError
    where ``every`` is not one of these, or ``anatomy`` names an unknown role or path.
    """
    return Probe(
        model,
        optimizer,
        run=run,
        endpoint=endpoint,
        trace=trace,
        every=every,
        budget=budget,
        anatomy=anatomy,
    )


class Probe:
    """A running probe. Safe to use as a context manager; closing twice does nothing."""

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
        self._off = False
        self._handles: list[Any] = []
        self._stopwatch = Stopwatch()
        self._budget = Budget(None if every == "auto" else every, budget)
        self._settings = {"every": str(every), "budget": str(budget)}
        self._step = 0
        self._step_began = time.perf_counter()
        self._step_times: list[float] = []
        self._row = Row(0, time.time())
        self._rows: list[Row] = []
        self._flushed = time.monotonic()
        self._pending: FrameDraft | None = None
        self._validation: Values = {}
        self._history = History()
        self._columns: tuple[Column, ...] = ()
        self._samples = 0
        self._peak_rate = 0.0
        self._sample: Sample | None = None
        self._wanted = True
        self._decodes = True
        self._model = model
        inner = _inner(optimizer)
        self._optimizers = [] if inner is None else [inner]
        rank, world = _ranks()
        self._pause = Pause(world)
        entry = new_entry(run or type(model).__name__.lower(), rank=rank, world_size=world)
        self.run, self.name, self._entry = entry.run, entry.name, entry
        self._trace_path = _trace_path(trace, entry.run, self._transport_error)
        self._publisher = Publisher(
            entry,
            endpoint=endpoint,
            trace_path=self._trace_path,
            on_control=self._control,
            status=self._status,
            on_error=self._transport_error,
        )
        try:
            self._parts = found if found is not None else find(model)
            self._compiled = hasattr(model, "_orig_mod") or _is_compiled(model)
            self._publisher.start()
            self._hook()
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
        if self._off:
            return
        try:
            for name, value in scalars.items():
                kept = value.detach().clone() if isinstance(value, torch.Tensor) else float(value)
                self._row.values[name] = kept
        except Exception as error:
            self._fail(error)

    def validation(self, **scalars: float) -> None:
        """Results of a validation, e.g. ``accuracy=0.9, loss=0.3``; shown with the next sample."""
        if self._off:
            return
        try:
            found = {name: float(value) for name, value in scalars.items()}
            self._validation.update(found)
            self.event("validation", ", ".join(f"{n} {v:.4g}" for n, v in found.items()))
        except Exception as error:
            self._fail(error)

    def event(self, kind: str, text: str) -> None:
        """Mark the current step with a sentence that the monitor shows on its charts."""
        step, now, rank = self._step, time.time(), self._entry.rank
        self._submit(
            lambda seq: Event(seq=seq, rank=rank, step=step, time=now, kind=kind, text=text)
        )

    def step(self) -> None:
        """Tell that an optimizer step was taken, where no optimizer hook can tell."""
        self._before_step()
        self._after_step()

    def close(self, reason: str = "closed") -> None:
        """Take every hook off, write the end of the trace, close the sockets."""
        self._settle()
        self._flush(force=True)
        self._detach()
        self._publisher.close(reason)

    def __enter__(self) -> Probe:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, tb: object) -> None:
        self.close("closed" if kind is None else f"stopped by {kind.__name__}")

    # -- the model's forward ---------------------------------------------------------------------

    def _hook(self) -> None:
        self._handles = [
            self._model.register_forward_pre_hook(self._forward_begins, with_kwargs=True),
            self._model.register_forward_hook(
                self._forward_ended, with_kwargs=True, always_call=True
            ),
        ]
        for optimizer in self._optimizers:
            self._handles += [
                optimizer.register_step_pre_hook(lambda o, a, k: self._before_step()),
                optimizer.register_step_post_hook(lambda o, a, k: self._after_step()),
            ]

    def _forward_begins(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        if self._off or not (module.training and torch.is_grad_enabled()):
            return
        try:
            with self._stopwatch:
                self._settle()
                self._row.began = True
                if self._wanted and self._sample is None:
                    self._open(args, kwargs)
        except Exception as error:
            self._fail(error)

    def _open(self, args: Any, kwargs: Any) -> None:
        batch = None if self._compiled else batch_of(self._parts, args, kwargs)
        seen = batch is not None and batch.length > 0
        if batch is not None:
            self._row.shares = batch.items is not None
        self._sample = Sample(self._parts, self._samples)
        if seen and batch is not None:
            self._sample.open(batch, self._fail, self._stopwatch)

    def _forward_ended(self, module: nn.Module, args: Any, kwargs: Any, out: Any) -> None:
        if self._off or not (module.training and torch.is_grad_enabled()):
            return
        try:
            with self._stopwatch:
                if out is None:  # the forward raised; what it left behind goes
                    self._forget()
                    return
                loss, logits = read_output(out)
                if loss is not None:
                    self._row.losses.append(loss.detach().clone())
                if self._sample is not None:
                    with quiet():
                        self._sample.forward_ended(loss, logits, self._decodes)
                    if not self._columns:
                        self._publish_header()
        except Exception as error:
            self._fail(error)

    def _publish_header(self) -> None:
        header = make_header(self._entry, self._parts, self._settings, compiled=self._compiled)
        self._columns = header.columns
        sample, parts = self._sample, self._parts
        values = sample.forward_values() if sample is not None else Measured({})
        seen = sample.seen if sample is not None else absence.Seen()
        options = {"compiled": self._compiled, "optimized": bool(self._optimizers)}

        def finished(seq: int) -> Header:
            # In the publishing thread, which may wait for the values.
            full = with_reasons(header, parts, seen, values.keys(), **options)
            return msgspec.structs.replace(full, seq=seq)

        self._submit(finished)
        self.event("attached", f"watching {header.anatomy.model}, {header.anatomy.layers} layers")

    # -- the optimizer's step --------------------------------------------------------------------

    def _before_step(self) -> None:
        if self._off or self._sample is None:
            return
        try:
            with self._stopwatch, quiet():
                self._sample.before_step(self._optimizers)
        except Exception as error:
            self._fail(error)

    def _after_step(self) -> None:
        if self._off:
            return
        try:
            now = time.perf_counter()
            with self._stopwatch:
                rate = max(training.rates(self._optimizers).values(), default=math.nan)
                self._row.values.setdefault("learning_rate", rate)
                if not math.isnan(rate):
                    self._peak_rate = max(self._peak_rate, rate)
                if self._sample is not None:
                    self._close_sample(self._sample, rate)
            self._count(now - self._step_began)
            if self._pause.held:
                self._hold()
            self._wanted = self._budget.wants(self._step)
            self._step_began = time.perf_counter()
        except Exception as error:
            self._fail(error)

    def _close_sample(self, sample: Sample, rate: float) -> None:
        try:
            sample.decode()
        except Exception as error:
            # The model's own cache path failed: that is not the probe's end.
            self._decodes = False
            self.event("note", f"the cache is not compared: {type(error).__name__}: {error}")
        extra: dict[str, Values] = {}
        if self._step_times:
            extra["training"] = {"step_time": statistics.median(self._step_times)}
            self._step_times.clear()
        if self._validation:
            extra["validation"], self._validation = self._validation, {}
        with quiet():
            self._pending = sample.finish(
                self._step, self._optimizers, rate, self._peak_rate, extra
            )

    def _count(self, seconds: float) -> None:
        """Account for the step that is over and begin the next."""
        spent = self._stopwatch.take()
        sampled = self._pending is not None
        self._row.values.setdefault("step_time", seconds)
        self._step_times.append(max(seconds - spent, 0.0))
        self._budget.step_done(self._step, seconds - spent, spent, sampled)
        if self._pending is not None:
            self._pending.cost = spent
            self._samples += 1
        self._rows.append(self._row)
        self._step += 1
        self._row = Row(self._step, time.time())
        self._forget()

    def _hold(self) -> None:
        self._settle()
        self._flush(force=True)
        self.event("paused", "training paused by a monitor")
        self.event("resumed", f"training goes on after {self._pause.wait():.1f} s")

    def _forget(self) -> None:
        """Let go of everything that belonged to the step."""
        if self._sample is not None:
            self._sample.drop()
        self._sample = None

    # -- handing on ------------------------------------------------------------------------------

    def _settle(self) -> None:
        """The step before is past being logged to: hand on its frame, and its row when due."""
        if self._row.values and self._rows and not self._row.began:
            # Logged after the optimizer's step, before the next forward: it belongs to that step.
            self._rows[-1].values.update(self._row.values)
            self._row.values.clear()
        draft, self._pending = self._pending, None
        if draft is not None:
            loss = self._rows[-1].loss() if self._rows else None
            if loss is not None:
                draft.add("training", "loss", loss)
            rank, columns, history = self._entry.rank, self._columns, self._history
            self._submit(lambda seq: draft.frame(seq, rank, columns, history))
        self._flush()

    def _flush(self, force: bool = False) -> None:
        now = time.monotonic()
        due = force or now - self._flushed >= FLUSH_SECONDS
        # The newest row may still be logged to; it waits for the next forward unless forced.
        if not self._columns or not self._rows or not due:
            return
        rows, self._rows, self._flushed = self._rows, [], now
        rank = self._entry.rank
        self._submit(lambda seq: pack(rows, seq, rank))

    def _submit(self, draft: Callable[[int], Record | None]) -> None:
        if not self._off:
            self._publisher.submit(draft)

    # -- control, in the publishing thread -------------------------------------------------------

    def _control(self, action: Literal["pause", "resume", "sample"]) -> Done:
        if self._off:
            return Done(ok=False, text="the probe is off")
        if action == "pause":
            self._pause.hold()
            return Done(ok=True, text=f"training pauses after step {self._step}")
        if action == "resume":
            self._pause.release()
            return Done(ok=True, text="training goes on")
        self._budget.ask()
        return Done(ok=True, text="the next step will be sampled")

    def _status(self) -> Status:
        state: Literal["off", "paused", "training", "waiting"]
        if self._off:
            state = "off"
        elif self._pause.held:
            state = "paused"
        else:
            state = "training" if self._step else "waiting"
        return Status(step=self._step, state=state, overhead=self._budget.overhead)

    # -- failure ---------------------------------------------------------------------------------

    def _fail(self, error: BaseException) -> None:
        """The probe turns itself off, says so once, and the training goes on."""
        with self._lock:
            if self._off:
                return
            text = f"the probe turned itself off: {type(error).__name__}: {error} ({_place(error)})"
            self.event("probe_off", text)
            self._off = True
        print(f"defaultpp probe: {text}; training goes on", file=sys.stderr)
        if os.environ.get("DEFAULTPP_DEBUG"):
            traceback.print_exception(type(error), error, error.__traceback__)
        self._detach()

    def _transport_error(self, error: BaseException) -> None:
        """A socket or the trace failed; measuring goes on with what is left."""
        print(f"defaultpp probe: {error}", file=sys.stderr)

    def _detach(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._forget()


def _inner(optimizer: Any) -> torch.optim.Optimizer | None:
    """The optimizer below wrappers such as Accelerate's, which keep it as ``optimizer``."""
    while optimizer is not None and "optimizer" in getattr(optimizer, "__dict__", {}):
        optimizer = optimizer.optimizer
    return optimizer if isinstance(optimizer, torch.optim.Optimizer) else None


def _trace_path(
    trace: str | os.PathLike[str] | Literal[False] | None,
    run: str,
    report: Callable[[BaseException], None],
) -> Path | None:
    """Where to record: the given path, or one in the user's state directory, told once."""
    if trace is False:
        return None
    if trace is not None:
        return Path(trace)
    try:
        path = traces_dir() / f"{run}.trace"
    except Exception as error:
        report(error)
        return None
    print(f"defaultpp probe: recording to {path}; watch with: defaultpp-monitor", file=sys.stderr)
    return path


def _is_compiled(model: nn.Module) -> bool:
    return any(getattr(m, "_compiled_call_impl", None) is not None for m in model.modules())


def _ranks() -> tuple[int, int]:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def _place(error: BaseException) -> str:
    tb = error.__traceback__
    if tb is None:
        return "unknown place"
    while tb.tb_next is not None:
        tb = tb.tb_next
    return f"{Path(tb.tb_frame.f_code.co_filename).name}:{tb.tb_lineno}"


__all__ = ["Probe", "attach"]
