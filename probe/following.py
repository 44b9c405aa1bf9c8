"""A model that runs without being trained: what is seen of evaluation and generation.

Only where no optimizer was given, and until the first training forward. A step is one forward of
the model, be it of whole sequences or one that continues a cache.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from probe.anatomy import ModelParts
from probe.batch import read_output
from probe.cached_tokens import ROWS, CachedTokens, Tokens, is_filled, kind_not_followed
from probe.capture import OnError, batch_of
from probe.frames import FrameDraft
from probe.measure import kv_cache
from probe.measure.decoding import LONGEST, Decoding, Given
from probe.measure.sampled import Values
from probe.measurement import Measurement
from probe.quiet import quiet
from probe.sample import Sample
from probe.stopwatch import Stopwatch

DROPOUT_ON = (
    "dropout is on while the model runs without gradients: call model.eval() before it evaluates "
    "or generates"
)
REORDERED = "a cache that is changed between forwards, as beam search does, is not compared"


class Following:
    """The forwards of one model. ``sample``: the one that is being looked at, where it is a forward
    of whole sequences; ``whole``: the newest forward was such a one; ``reason``: why the newest
    that was to be sampled is not, or empty."""

    def __init__(self, parts: ModelParts, on_error: OnError, watch: Stopwatch) -> None:
        self.sample: Sample | None = None
        self.reason = ""
        self.whole = True
        self._failed = False
        self._parts, self._on_error, self._watch = parts, on_error, watch
        self._caches = CachedTokens() if kv_cache.possible(parts) else None
        self._decoding: Decoding | None = None
        self._tokens: Tokens | None = None
        self._arguments: tuple[Any, Any] = ((), {})
        self._began = 0.0
        self._inside = False
        self._warned = False

    def begins(self, module: nn.Module, args: Any, kwargs: Any, wanted: bool, inner: bool) -> bool:
        """A forward begins; ``wanted``: it shall be sampled; ``inner``: hooks may be set within.

        False for one that the probe itself runs.
        """
        if self._inside:
            return False
        self.drop()
        self.reason = ""
        self._began = time.perf_counter()
        self._arguments = args, kwargs
        cache = kwargs.get("past_key_values")
        if self._caches is not None and cache is not None:
            self._tokens = self._caches.begins(cache)
        self.whole = not is_filled(cache)
        if wanted and inner:
            self._open(args, kwargs)
        return True

    def _open(self, args: Any, kwargs: Any) -> None:
        parts = self._parts
        # In evaluation torch runs its own layers in one fused call, which any hook switches off.
        if any(layer.packed is not None for layer in parts.layers):
            return
        kind = kind_not_followed(kwargs.get("past_key_values"))
        if kind:
            self.reason = f"what runs with a cache of {kind} is not looked into"
        elif not self.whole:
            given = self._given(args, kwargs) if self._caches is not None else None
            if given is not None and parts.settled and not self._failed:
                self._decoding = Decoding(parts, given, self._watch)
        batch = batch_of(parts, args, kwargs) if self.whole else None
        if batch is not None and batch.length == 1:
            self.reason = self.reason or "forwards of one token each are not looked into"
        # What is not to be looked into still settles, once, what the header says of the model.
        if batch is not None and batch.length > 0 and not (self.reason and parts.settled):
            self.sample = Sample(parts, 0, [])
            self.sample.open(batch, self._on_error, self._watch)

    def _given(self, args: Any, kwargs: Any) -> Given | None:
        """What a forward continues; None where that is not known, or too long."""
        tokens, new = self._tokens, _ids(args, kwargs)
        if tokens is not None and not tokens.known:
            self.reason = REORDERED
        if tokens is None or not tokens.known or new is None or new.dim() != 2:
            return None
        with quiet():
            ids = torch.cat([*tokens.ids, new[:ROWS].detach()], dim=1)
        if ids.shape[1] > LONGEST:
            self.reason = f"cached decoding beyond {LONGEST} tokens is not compared"
            return None
        mask, positions = kwargs.get("attention_mask"), kwargs.get("position_ids")
        if isinstance(mask, torch.Tensor):
            if mask.dim() != 2 or mask.shape[1] != ids.shape[1]:
                return None  # it says something else than one entry per token
            mask = mask[:ROWS].detach()
        if isinstance(positions, torch.Tensor):
            if positions.dim() != 2 or positions.shape[1] != new.shape[1]:
                return None
            positions = positions[:ROWS].detach().expand(ids.shape[0], -1)
        return Given(ids, new.shape[1], mask, positions, new.shape[0])

    def seconds(self) -> float:
        """Since the newest forward began."""
        return time.perf_counter() - self._began

    def ended(self, out: Any) -> None:
        """It returned ``out``: keep what is needed of it."""
        if self._caches is not None:
            with quiet():
                self._caches.ended(getattr(out, "past_key_values", None), _ids(*self._arguments))
        self._arguments = (), {}
        if self.sample is not None:
            loss, logits = read_output(out)
            with quiet():
                self.sample.forward_ended(loss, logits, None)

    def frame(
        self, step: int, out: Any, extra: Callable[[], dict[str, Values]]
    ) -> FrameDraft | None:
        """What was measured in the forward that ended; None where it was not sampled. ``extra``:
        asked for what is told beside it."""
        sample, decoding = self.sample, self._decoding
        self.sample = self._decoding = None
        if sample is not None and self.reason:
            sample.drop()
            return None
        if sample is not None:
            with quiet():
                return sample.observed(step, extra())
        if decoding is None:
            return None
        self._inside = True
        try:
            values = decoding.measure(out)
        except Exception as error:
            # The model's own forward failed in another way of calling it: not the probe's end.
            self._failed = True
            self.reason = f"cached decoding is not compared: {type(error).__name__}: {error}"
            return None
        finally:
            self._inside = False
            decoding.drop()
        with quiet():
            return FrameDraft(step, Measurement(values | extra()))

    def warns(self) -> bool:
        """Once, if dropout is on."""
        if self._warned:
            return False
        self._warned = drops_out(self._parts)
        return self._warned

    def drop(self) -> None:
        """Take off what hooks are there."""
        if self.sample is not None:
            self.sample.drop()
        if self._decoding is not None:
            self._decoding.drop()
        self.sample = self._decoding = self._tokens = None


def drops_out(parts: ModelParts) -> bool:
    """Whether a forward of the model drops something out as it stands."""
    rate = parts.intent.attention_dropout or 0.0
    modules = parts.root.modules()
    return any(
        module.training and (isinstance(module, nn.Dropout) and module.p > 0.0)
        for module in modules
    ) or (parts.root.training and rate > 0.0)


def _ids(args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor | None:
    found = kwargs.get("input_ids", args[0] if args else None)
    return found if isinstance(found, torch.Tensor) and not found.is_floating_point() else None
