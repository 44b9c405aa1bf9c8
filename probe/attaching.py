"""``attach``: joins a model and its optimizer, samples their steps, and hands frames on.

A sample is armed at attach and after each optimizer step. It opens with the first forward in
training mode with gradients, reads gradients in the optimizer's step pre-hook, and closes in the
post-hook. Steps that are not sampled cost a counter and the copy of a scalar loss.
"""

from __future__ import annotations

import math
import os
import resource
import statistics
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from probe.anatomy import describe, find
from probe.budget import Budget
from probe.capture import Capture, Capturing, read_batch, read_output
from probe.catalogue import METRICS, columns_for
from probe.directories import traces_dir
from probe.frames import FrameDraft, History
from probe.measure import kv_cache, parameters, training
from probe.measure.sampled import Values
from probe.measurement import measure_forward
from probe.publisher import Publisher
from probe.quiet import quiet
from probe.registry import new_entry
from probe.scalars import Number, Row, pack
from probe.schema import (
    PAUSE_LEASE_SECONDS,
    SCHEMA_VERSION,
    Column,
    Done,
    Event,
    Header,
    Record,
)
from probe.status import Status
from probe.stopwatch import Stopwatch

CACHE_EVERY = 4
"""Cached decoding is compared on one sample in so many: it runs the model four more times."""
FLUSH_SECONDS = 0.25
RANKS_PAUSE_SECONDS = 60.0
"""A run of several ranks resumes by itself: the other ranks' collectives would time out."""


def attach(
    model: nn.Module,
    optimizer: Any = None,
    *,
    run: str | None = None,
    endpoint: str | Literal[False] | None = None,
    trace: str | os.PathLike[str] | Literal[False] | None = None,
    every: int | Literal["auto"] = "auto",
    budget: float | None = 0.02,
) -> Probe:
    """Watch ``model`` train. Returns at once; nothing it does afterwards raises or blocks.

    ``optimizer`` tells the steps; without one, call ``p.step()`` after each. ``run``: a name for
    the monitor. ``endpoint``: where to listen (default: a socket of this user's; False: nowhere).
    ``trace``: file to record to (default: in the user's state directory; False: none).
    ``every``: sample each so many steps instead of by ``budget``, the share of training time the
    probe may take (None: no limit).
    """
    return Probe(
        model, optimizer, run=run, endpoint=endpoint, trace=trace, every=every, budget=budget
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
    ) -> None:
        if every != "auto" and (not isinstance(every, int) or every < 1):
            raise ValueError(f"every must be 'auto' or a number of steps >= 1, not {every!r}")
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
        self._validation: dict[str, float] = {}
        self._paused_until = 0.0
        self._wake = threading.Event()
        self._history = History()
        self._columns: tuple[Column, ...] = ()
        self._samples = 0
        self._peak_rate = 0.0
        self._capturing: Capturing | None = None
        self._forward: dict[str, Values] | None = None
        self._grams: dict[int, torch.Tensor] = {}
        self._ids: torch.Tensor | None = None
        self._cache_rows: kv_cache.Rows | None = None
        self._decodes = True
        self._moving: parameters.Moving | None = None
        self._pre: dict[str, Values] = {}
        self._model = model
        self._optimizers = [o for o in [_inner(optimizer)] if o is not None]
        rank, world = _ranks()
        entry = new_entry(run or type(model).__name__.lower(), rank=rank, world_size=world)
        self.run, self.name, self._entry = entry.run, entry.name, entry
        self._world = world
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
            self._parts = find(model)
            self._watched = parameters.watched(self._parts)
            self._compiled = hasattr(model, "_orig_mod") or _is_compiled(model)
            self._publisher.start()
            self._hook()
            self._wanted = True
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
            self._validation.update({name: float(value) for name, value in scalars.items()})
            told = ", ".join(f"{name} {value:.4g}" for name, value in self._validation.items())
            self.event("validation", told)
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
        for optimizer in self._optimizers[:1]:
            self._handles.append(
                optimizer.register_step_pre_hook(lambda o, a, k: self._before_step())
            )
            self._handles.append(
                optimizer.register_step_post_hook(lambda o, a, k: self._after_step())
            )

    def _forward_begins(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        if self._off or not (module.training and torch.is_grad_enabled()):
            return
        try:
            with self._stopwatch:
                self._settle()
                self._row.began = True
                if self._wanted and self._capturing is None and self._forward is None:
                    self._open(args, kwargs)
        except Exception as error:
            self._fail(error)

    def _open(self, args: Any, kwargs: Any) -> None:
        if self._compiled:
            self._forward = {}
            return
        batch = read_batch(self._parts.root, args, kwargs)
        if batch is None or batch.length == 0:
            self._forward = {}
            return
        self._row.shares = batch.items is not None
        self._capturing = Capturing(self._parts, batch, self._fail, self._stopwatch)

    def _forward_ended(self, module: nn.Module, args: Any, kwargs: Any, out: Any) -> None:
        if self._off or not (module.training and torch.is_grad_enabled()):
            return
        try:
            with self._stopwatch:
                loss, logits = read_output(out)
                if loss is not None:
                    self._row.losses.append(loss.detach().clone())
                if self._capturing is not None:
                    capture = self._capturing.close()
                    self._capturing = None
                    if out is not None:
                        capture.loss = loss.detach() if loss is not None else None
                        capture.logits = logits.detach() if logits is not None else None
                        self._seen(capture)
        except Exception as error:
            self._fail(error)

    def _seen(self, capture: Capture) -> None:
        """A forward was captured: the first one settles the anatomy, later ones are measured."""
        if not self._columns:
            self._parts.settle(capture.order)
            self._watched = parameters.watched(self._parts)
            self._publish_header()
            return
        with quiet():
            self._forward, self._grams = measure_forward(self._parts, capture)
            batch = capture.batch
            self._ids = capture.picked.take_ids(batch.ids) if batch.ids is not None else None
            due = self._decodes and self._samples % CACHE_EVERY == 0
            due = due and kv_cache.possible(self._parts)
            self._cache_rows = kv_cache.keep_rows(batch.ids, batch.mask) if due else None

    def _publish_header(self) -> None:
        anatomy = describe(self._parts)
        self._columns = columns_for(anatomy.sites)
        entry, settings, columns = self._entry, dict(self._settings), self._columns
        first = next(self._parts.root.parameters())
        settings |= {"dtype": str(first.dtype).removeprefix("torch."), "device": first.device.type}
        absent = self._absent()
        self._submit(
            lambda seq: Header(
                seq=seq,
                schema=SCHEMA_VERSION,
                run=entry.run,
                name=entry.name,
                created=entry.created,
                host=entry.host,
                pid=entry.pid,
                rank=entry.rank,
                world_size=entry.world_size,
                anatomy=anatomy,
                metrics=METRICS,
                columns=columns,
                absent=absent,
                settings=settings,
                versions=_versions(),
            )
        )
        self.event("attached", f"watching {anatomy.model}, {anatomy.layers} layers")

    def _absent(self) -> dict[str, str]:
        reasons: dict[str, str] = {}
        intent = self._parts.intent
        if self._compiled:
            reasons["forward"] = "the model is compiled; activations are not read from it yet"
        if not kv_cache.possible(self._parts):
            reasons["kv_cache"] = "not a decoder that may cache while training"
        if not self._optimizers:
            reasons["unmoved"] = "no optimizer was given"
        if intent.activation is None:
            reasons["activation_error"] = "no config states an activation"
        if intent.norm_eps is None:
            reasons["eps_ratio"] = "no config states an epsilon; norms are compared with each other"
        return reasons

    # -- the optimizer's step --------------------------------------------------------------------

    def _before_step(self) -> None:
        if self._off or self._forward is None:
            return
        try:
            with self._stopwatch, quiet():
                scale = self._unscale()
                self._moving = parameters.read_before(self._watched, self._ids, scale)
                norm = training.global_norm(self._parts, scale)
                values: Values = training.coverage(self._parts, self._optimizers)
                if norm is not None:
                    values["grad_norm"] = norm
                self._pre = {"training": values}
        except Exception as error:
            self._fail(error)

    def _unscale(self) -> torch.Tensor | None:
        """The loss scale that fused optimizers under a GradScaler divide by inside their step."""
        for optimizer in self._optimizers:
            scale = getattr(optimizer, "grad_scale", None)
            if isinstance(scale, torch.Tensor):
                return scale
        return None

    def _after_step(self) -> None:
        if self._off:
            return
        try:
            now = time.perf_counter()
            with self._stopwatch:
                rates = training.rates(self._optimizers)
                rate = max(rates.values(), default=math.nan)
                self._peak_rate = max(self._peak_rate, 0.0 if math.isnan(rate) else rate)
                self._row.values.setdefault("learning_rate", rate)
                sampled = self._forward is not None and self._moving is not None
                if sampled and self._columns:
                    decoded = self._decode()
                    with quiet():
                        self._close_sample(rates, rate, decoded)
            spent = self._stopwatch.take()
            seconds = now - self._step_began
            self._row.values.setdefault("step_time", seconds)
            self._step_times.append(max(seconds - spent, 0.0))
            self._budget.step_done(self._step, seconds - spent, spent, sampled)
            if self._pending is not None:
                self._pending.cost = spent
            self._rows.append(self._row)
            self._step += 1
            self._row = Row(self._step, time.time())
            self._forget()
            if self._paused_until > time.monotonic():
                self._wait_while_paused()
            self._wanted = self._budget.wants(self._step)
            self._step_began = time.perf_counter()
        except Exception as error:
            self._fail(error)

    def _close_sample(
        self, rates: dict[int, float], rate: float, decoded: dict[str, Values]
    ) -> None:
        assert self._forward is not None and self._moving is not None
        values = self._forward
        for site, metrics in parameters.read_after(self._watched, self._moving, rates).items():
            values.setdefault(site, {}).update(metrics)
        own = values.setdefault("training", {})
        own.update(self._pre.get("training", {}))
        own.update(training.gradients(values, len(self._parts.layers)))
        own["learning_rate"] = rate
        own["memory"] = _peak_memory()
        if self._step_times:
            own["step_time"] = statistics.median(self._step_times)
            self._step_times.clear()
        decay = training.decays(self._optimizers)
        for layer in self._parts.layers:
            for node in ("norm_attention", "norm_ffn"):
                norm = getattr(layer, node)
                if norm is not None:
                    severity = training.decay_severity(norm, decay, self._peak_rate)
                    values.setdefault(f"{node}@{layer.index}", {})["decay_severity"] = severity
            if layer.ffn is not None:
                gap = training.decay_gap(layer, self._parts, decay)
                values.setdefault(f"ffn@{layer.index}", {})["decay_gap"] = gap
        if self._parts.norm_final is not None:
            severity = training.decay_severity(self._parts.norm_final, decay, self._peak_rate)
            values.setdefault("norm_final", {})["decay_severity"] = severity
        for site, metrics in decoded.items():
            values.setdefault(site, {}).update(metrics)
        if self._validation:
            values["validation"] = dict(self._validation)
            self._validation = {}
        self._samples += 1
        self._pending = FrameDraft(self._step, values, self._grams)

    def _decode(self) -> dict[str, Values]:
        """Cached decoding against a fresh forward. A model that cannot do it is asked once."""
        if self._cache_rows is None:
            return {}
        try:
            return kv_cache.measure(self._parts, self._cache_rows)
        except Exception as error:
            self._decodes = False
            self.event("note", f"the cache is not compared: {type(error).__name__}: {error}")
            return {}

    def _forget(self) -> None:
        """Let go of everything that belonged to the step."""
        if self._capturing is not None:
            self._capturing.close()
        self._capturing = self._forward = self._moving = self._ids = self._cache_rows = None
        self._grams, self._pre = {}, {}

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
        if (
            not self._columns
            or not self._rows
            or (now - self._flushed < FLUSH_SECONDS and not force)
        ):
            return
        rows, self._rows, self._flushed = self._rows, [], now
        rank = self._entry.rank
        self._submit(lambda seq: pack(rows, seq, rank))

    def _submit(self, draft: Callable[[int], Record | None]) -> None:
        if not self._off:
            self._publisher.submit(draft)

    # -- control ---------------------------------------------------------------------------------

    def _control(self, action: Literal["pause", "resume", "sample"]) -> Done:
        """Called in the publishing thread."""
        if self._off:
            return Done(ok=False, text="the probe is off")
        if action == "pause":
            self._wake.clear()
            self._paused_until = time.monotonic() + 2 * PAUSE_LEASE_SECONDS
            return Done(ok=True, text=f"training pauses after step {self._step}")
        if action == "resume":
            self._paused_until = 0.0
            self._wake.set()
            return Done(ok=True, text="training goes on")
        self._budget.ask()
        return Done(ok=True, text="the next step will be sampled")

    def _wait_while_paused(self) -> None:
        self._settle()
        self._flush(force=True)
        self.event("paused", "training paused by a monitor")
        began = time.monotonic()
        while time.monotonic() < self._paused_until and not self._off:
            if self._world > 1 and time.monotonic() - began > RANKS_PAUSE_SECONDS:
                break
            self._wake.wait(0.2)
        self._paused_until = 0.0
        self.event("resumed", f"training goes on after {time.monotonic() - began:.1f} s")

    def _status(self) -> Status:
        """Called in the publishing thread."""
        if self._off:
            state: Any = "off"
        elif self._paused_until > time.monotonic():
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
            place = _place(error)
            text = f"the probe turned itself off: {type(error).__name__}: {error} ({place})"
            self.event("probe_off", text)
            self._off = True
        print(f"defaultpp probe: {text}; training goes on", file=sys.stderr)
        if os.environ.get("DEFAULTPP_DEBUG"):
            import traceback

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
    """The optimizer below wrappers such as Accelerate's."""
    while optimizer is not None and not isinstance(optimizer, torch.optim.Optimizer):
        optimizer = getattr(optimizer, "optimizer", None)
    while "optimizer" in getattr(optimizer, "__dict__", {}):
        optimizer = optimizer.optimizer
    return optimizer


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


def _peak_memory() -> float:
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return float(torch.cuda.max_memory_allocated())
    # Linux counts in KiB, macOS in bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)


def _versions() -> dict[str, str]:
    found = {"python": sys.version.split()[0], "torch": str(torch.__version__)}
    transformers = sys.modules.get("transformers")
    if transformers is not None:
        found["transformers"] = str(transformers.__version__)
    return found


def _place(error: BaseException) -> str:
    tb = error.__traceback__
    if tb is None:
        return "unknown place"
    while tb.tb_next is not None:
        tb = tb.tb_next
    return f"{Path(tb.tb_frame.f_code.co_filename).name}:{tb.tb_lineno}"


__all__ = ["Probe", "attach"]
