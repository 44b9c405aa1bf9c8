"""What runs the model again at a step's end: cached decoding and counterfactuals, in turn."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from probe import absence
from probe.anatomy import ModelParts
from probe.captured import Capture
from probe.compiled import calls_compiled
from probe.counterfactual import KINDS, Counterfactuals, Kept, outlook
from probe.measure import effects, kv_cache
from probe.measure.sampled import Values

_COMPILED = "the model calls a function compiled by itself, which other shapes would compile anew"

CACHE_EVERY = 4
"""Cached decoding is compared on one sample in so many: it runs the model four more times."""


@dataclass
class Reruns:
    """Over a run: what is still possible. The model may fail at one and not at the other."""

    caches: bool = True
    compiled: bool | None = None
    """The model calls a function compiled by itself: other shapes would compile it anew."""
    counterfactuals: Counterfactuals = field(default_factory=Counterfactuals)
    _notes: list[str] = field(default_factory=list)

    def keep(self, parts: ModelParts, capture: Capture, number: int) -> Waiting:
        """Copy from the batch what the reruns of sample ``number`` need."""
        waiting = Waiting(self, parts)
        if self.compiled is None:
            self.compiled = calls_compiled(parts.root)
        if self.compiled:
            return waiting
        if self.caches and number % CACHE_EVERY == 0 and kv_cache.possible(parts):
            waiting.rows = kv_cache.keep_rows(capture.batch.ids, capture.batch.mask)
        waiting.kept = self.counterfactuals.keep(parts, capture, number)
        return waiting

    def told(self) -> list[str]:
        """What failed since the last call, in words."""
        found, self._notes = self._notes, []
        return [*found, *self.counterfactuals.told()]

    def cache_failed(self, error: BaseException) -> None:
        """The model's own cache path failed: that is not the probe's end."""
        self.caches = False
        self._notes.append(f"the cache is not compared: {type(error).__name__}: {error}")


@dataclass
class Waiting:
    """What one sample is to run when its step is over."""

    reruns: Reruns
    parts: ModelParts
    rows: kv_cache.Rows | None = None
    kept: Kept | None = None

    def run(self) -> list[dict[str, Values]]:
        """Run the model again; values by site. A failure of the model is kept as a note.

        Not under ``quiet``: silencing dropout needs a torch function mode.
        """
        found = []
        if self.rows is not None:
            try:
                found.append(kv_cache.measure(self.parts, self.rows))
            except Exception as error:
                self.reruns.cache_failed(error)
        if self.kept is not None:
            try:
                found.append(effects.measure(self.parts, self.kept))
            except Exception as error:
                self.reruns.counterfactuals.give_up(self.kept.kind, error)
        return found


def foreseen(
    parts: ModelParts, capture: Capture, seen: absence.Seen
) -> tuple[absence.Seen, Values]:
    """``seen`` with reasons for the counterfactuals, and which of them this batch has something
    for: NaN where not."""
    values: Values = {}
    reasons = dict.fromkeys(KINDS, _COMPILED)
    try:
        if not calls_compiled(parts.root):
            values, reasons = outlook(parts, capture)
    except Exception as error:  # of arguments that cannot be cut; told again when their turn comes
        reasons = dict.fromkeys(KINDS, f"{type(error).__name__}: {error}")
    named = {name: text for kind, text in reasons.items() for name in effects.names_of(kind)}
    known = {name: v for kind, v in values.items() for name in effects.names_of(kind)}
    return replace(seen, effects=named), known
