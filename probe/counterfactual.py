"""What is changed in a counterfactual rerun, which outputs are watched, and whose turn it is.

Two rows of the batch, cut to a few tokens, are copied while the step runs. At its end the model
runs on them twice as they are and once with one thing changed (:mod:`probe.rerun`); what the
outputs make of it is measured in :mod:`probe.measure.effects`. Nothing here waits for a device.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from probe.anatomy import ModelParts
from probe.batch import Batch
from probe.captured import Capture
from probe.measure.numbers import strided
from probe.measure.sampled import prepare
from probe.rerun import Call, NotRepeatable, why_never
from probe.silenced import Other, OtherPositions, OtherTokens

KINDS = ("padding", "future", "packing", "batch", "trim", "position", "context")
LENGTH = 32
"""Tokens of a row that are kept."""
SHORTEST = 6

_MIXING = "BatchNorm"


def due(number: int, kinds: tuple[str, ...]) -> str | None:
    """The kind whose turn it is on sample ``number``: one on odd samples, which leave the cache
    alone."""
    return kinds[number // 2 % len(kinds)] if kinds and number % 2 else None


@dataclass(frozen=True)
class Change:
    """One rerun with something changed, and where to look.

    ``call``: its arguments; None: those of the unchanged run. ``watch`` (r, n) bool: outputs of the
    unchanged run that are compared, by row and position. ``rows``: for each row of the changed run
    the row of the unchanged one that it must equal, None: the same; ``length``: how many outputs a
    row of it has, None: as many.
    """

    watch: torch.Tensor
    other: Other | None = None
    call: Call | None = None
    rows: tuple[int, ...] | None = None
    length: int | None = None


@dataclass(frozen=True)
class Kept:
    """One counterfactual, ready to be run. ``module``: whose outputs are compared, where the model
    gives one output per row: of that it is not known which token it stands at."""

    kind: str
    base: Call
    change: Change
    module: nn.Module | None


@dataclass(frozen=True)
class _Cut:
    """The rows and columns that are kept of a batch.

    ``real`` (r, n) bool: no padding. ``documents`` (r, n): as in
    :class:`probe.measure.sampled.Sampled`.
    """

    parts: ModelParts
    batch: Batch
    rows: torch.Tensor
    columns: torch.Tensor
    real: torch.Tensor
    documents: torch.Tensor | None

    @property
    def half(self) -> int:
        return len(self.columns) // 2

    def call(self, rows: torch.Tensor | None = None, length: int | None = None) -> Call:
        """The model's arguments, cut; ``rows`` instead of these, the first ``length`` columns."""
        rows = self.rows if rows is None else rows
        columns = self.columns if length is None else self.columns[:length]
        args = tuple(self._cut(value, rows, columns) for value in self.batch.args)
        kwargs = self.batch.kwargs
        if self.parts.intent.family and not self.parts.coded:
            # transformers' models need no labels for their logits.
            kwargs = {n: v for n, v in kwargs.items() if n not in ("labels", "num_items_in_batch")}
        return Call(args, {name: self._cut(v, rows, columns) for name, v in kwargs.items()})

    def _cut(self, value: Any, rows: torch.Tensor, columns: torch.Tensor) -> Any:
        """Along every dimension that has the batch's size, or its length."""
        if not isinstance(value, torch.Tensor):
            return value
        value = value.detach()
        wide = value.dim() == 3 and value.is_floating_point()  # of embeddings the last is a width
        dims = range(min(2, value.dim()) if wide else value.dim())
        decoder = self.batch.decoder.length if self.batch.decoder is not None else 0
        whole = True
        for dim in dims:
            if whole and value.shape[dim] == self.batch.size and dim < 2:
                value, whole = value.index_select(dim, rows), False
            elif value.shape[dim] == self.batch.length:
                value = value.index_select(dim, columns)
            elif value.shape[dim] == decoder > LENGTH:
                value = value.narrow(dim, 0, LENGTH)
        return value.clone()


def outlook(parts: ModelParts, capture: Capture) -> tuple[dict[str, Any], dict[str, str]]:
    """What this batch has to offer: by kind a tensor, NaN where there is nothing to change or to
    watch; and by kind the reason why it is, or might be, out of the question."""
    reasons = {kind: why_not(kind, parts, capture) for kind in KINDS}
    values = {}
    for kind, text in reasons.items():
        if not text:
            watch = keep(kind, parts, capture).change.watch
            values[kind] = torch.where(watch.any(), 1.0, torch.nan)
            reasons[kind] = _NOTHING[kind]
    return values, reasons


_NOTHING = {
    "padding": "there is no padding in the rows that are looked at",
    "future": "most layers see later positions",
    "packing": "there is one document in each of the rows that are looked at",
    "batch": "there are no tokens in the rows that are looked at",
    "trim": "no row that is looked at is padded on its right only",
    "position": "there are no positions in the rows that are looked at",
    "context": "there are no tokens in the rows that are looked at",
}


def why_not(kind: str, parts: ModelParts, capture: Capture) -> str:
    """Why a kind is out of the question, from what is known on the host; empty where it is not."""
    batch, never = capture.batch, why_never(parts.root)
    if never:
        return never
    if batch.length < SHORTEST or batch.size == batch.length:
        return "rows are too short, or as long as there are many"
    if any(not _plain(v) for v in (*batch.args, *batch.kwargs.values())):
        return "the forward takes arguments whose rows cannot be told"
    if parts.token_embedding is None or batch.ids is None:
        return "the token embedding was not found, or the forward is not given tokens"
    if _pooled(capture) and len(parts.stacks) != 1:
        return "the model gives one output per row, and its blocks are not one stack"
    if not parts.coded and any(layer.cross is not None for layer in parts.layers):
        return "the blocks read other states too, and what those are made of cannot be told"
    if kind not in ("position", "context") and _mixes(parts):
        return "rows or tokens share statistics or a capacity by design"
    return _WHY_NOT[kind](parts, capture)


def _plain(value: Any) -> bool:
    return value is None or isinstance(value, (torch.Tensor, bool, int, float, str))


def _mixes(parts: ModelParts) -> bool:
    """Batch statistics, or experts that drop what is over their capacity."""
    config = getattr(parts.root, "config", None)
    return bool(getattr(config, "expert_capacity", None)) or any(
        _MIXING in type(m).__name__ for m in parts.root.modules()
    )


def _padding(parts: ModelParts, capture: Capture) -> str:
    return "" if capture.batch.mask is not None else "no mask with one entry per token was given"


def _future(parts: ModelParts, capture: Capture) -> str:
    causal = parts.stacks[-1].causal if parts.stacks else None
    if causal is False:
        return "the model is not causal"
    if capture.of_output[1].full_mask is not None:
        return "the caller's own mask says what may be seen"
    if causal is None and prepare(parts, capture)[-1].causal is None:
        return "nothing tells whether the model is causal"
    return ""


def _packing(parts: ModelParts, capture: Capture) -> str:
    positions, batch = capture.batch.positions, capture.batch
    if positions is None or positions.dim() != 2 or positions.shape != (batch.size, batch.length):
        return "no position ids were given, which would tell packed documents apart"
    return ""


def _batch(parts: ModelParts, capture: Capture) -> str:
    return "" if capture.batch.size > 1 else "there is one row"


def _trim(parts: ModelParts, capture: Capture) -> str:
    decoder = capture.batch.decoder
    if decoder is not None and parts.coded and decoder.length == capture.batch.length:
        return "both stacks' sequences have one length"
    return _padding(parts, capture)


def _must_matter(parts: ModelParts, capture: Capture) -> str:
    whole = all(p.dtype == torch.float32 for p in parts.root.parameters() if p.is_floating_point())
    return "" if whole else "what must matter is told in float32 only"


def _position(parts: ModelParts, capture: Capture) -> str:
    if not _tables(parts) and not parts.intent.turned:
        return "no positions were found that could be changed"
    return _must_matter(parts, capture)


_WHY_NOT = {
    "padding": _padding,
    "future": _future,
    "packing": _packing,
    "batch": _batch,
    "trim": _trim,
    "position": _position,
    "context": _must_matter,
}


def _pooled(capture: Capture) -> bool:
    """One output for each row, as a classifier's."""
    logits = capture.logits
    return logits is not None and logits.dim() == 2 and len(logits) == capture.batch.size


def _tables(parts: ModelParts) -> list[torch.Tensor]:
    found = [layer.relative_bias for layer in parts.layers if layer.relative_bias is not None]
    tables = [parts.position_embedding, *found]
    return [t.weight for t in tables if t is not None and isinstance(t.weight, torch.Tensor)]


# -- what is kept of a batch ----------------------------------------------------------------------


def keep(kind: str, parts: ModelParts, capture: Capture) -> Kept:
    """Copy what ``kind`` needs of the batch. Only where :func:`why_not` is empty."""
    cut = _cut(kind, parts, capture.batch)
    last = parts.layers[-1].block if _pooled(capture) else None
    return Kept(kind, cut.call(), _MAKERS[kind](cut, capture), last)


def _cut(kind: str, parts: ModelParts, batch: Batch) -> _Cut:
    """The rows with most and with least padding, around where the padding, or a document, ends."""
    given = batch.mask if batch.mask is not None else batch.ids
    assert given is not None
    device, count = given.device, min(LENGTH, batch.length)
    places = torch.arange(min(2, batch.size), device=device) * (batch.size - 1)
    rows, mask, positions = places, batch.mask, batch.positions
    real = torch.ones(len(rows), batch.length, dtype=torch.bool, device=device)
    if mask is not None:
        rows = torch.argsort((mask != 0).sum(dim=1)).index_select(0, places)
        real = mask.index_select(0, rows) != 0
    turn = real[0, 1:] != real[0, :-1]
    if kind == "packing":
        assert positions is not None
        turn = positions.index_select(0, rows[:1])[0, 1:] == 0
    # Without a turn, argmax gives the first place.
    start = (turn.int().argmax() + 1 - count // 2).clamp_min(0)
    if kind == "trim":
        # So that the padding begins in the middle, the last column may be repeated.
        columns = (start + torch.arange(count, device=device)).clamp_max(batch.length - 1)
    else:
        columns = start.clamp_max(batch.length - count) + torch.arange(count, device=device)
    real = real.index_select(1, columns)
    documents = None
    if kind == "packing" and positions is not None:
        own = positions.index_select(0, rows).index_select(1, columns)
        documents = ((own == 0) & real).cumsum(dim=1)
    return _Cut(parts, batch, rows, columns, real, documents)


def _tokens(cut: _Cut, where: torch.Tensor, call: int | None = None) -> OtherTokens:
    table = cut.parts.token_embedding
    assert table is not None
    # In an encoder-decoder the encoder reads the shared table first.
    first = 0 if cut.parts.coded else None
    return OtherTokens(table.weight, where, first if call is None else call)


def _seen(cut: _Cut, capture: Capture, watch: torch.Tensor) -> torch.Tensor:
    """``watch`` over the encoder's tokens, as rows of what the decoder gives in the end."""
    if not cut.parts.coded:
        return watch
    return watch.any(dim=1, keepdim=True).expand(-1, _decoded(capture))


def _decoded(capture: Capture) -> int:
    logits, batch = capture.logits, capture.of_output[1]
    length = logits.shape[1] if logits is not None and logits.dim() == 3 else batch.length
    return min(length, LENGTH)


def _change_padding(cut: _Cut, capture: Capture) -> Change:
    where = ~cut.real
    watch = cut.real & where.any(dim=1, keepdim=True)
    return Change(_seen(cut, capture, watch), _tokens(cut, where))


def _change_future(cut: _Cut, capture: Capture) -> Change:
    real, call = cut.real, None
    if cut.parts.coded:
        real, call = real.new_ones(len(real), _decoded(capture)), 1
    later = torch.arange(real.shape[1], device=real.device) >= real.shape[1] // 2
    watch = real & ~later
    if cut.parts.stacks[-1].causal is None:
        causal = prepare(cut.parts, capture)[-1].causal
        assert causal is not None
        watch = watch & causal
    return Change(watch, _tokens(cut, later.expand_as(real), call))


def _change_packing(cut: _Cut, capture: Capture) -> Change:
    assert cut.documents is not None
    first = cut.documents == cut.documents[:, :1]
    where = first & cut.real
    watch = ~first & cut.real & where.any(dim=1, keepdim=True)
    return Change(_seen(cut, capture, watch), _tokens(cut, where))


def _change_batch(cut: _Cut, capture: Capture) -> Change:
    """The rows change places, and the one that is not watched gets other tokens."""
    watch, where = cut.real.clone(), torch.zeros_like(cut.real)
    watch[0], where[1] = False, True
    call = cut.call(rows=cut.rows.flip(0))
    return Change(_seen(cut, capture, watch), _tokens(cut, where), call, rows=(1, 0))


def _change_trim(cut: _Cut, capture: Capture) -> Change:
    """The padded row alone, without its padding."""
    later = torch.arange(cut.real.shape[1], device=cut.real.device) >= cut.half
    alone = ~(cut.real[0] & later).any() & (~cut.real[0]).any()
    watch = torch.zeros_like(cut.real)
    watch[0] = cut.real[0] & ~later & alone
    call = cut.call(rows=cut.rows[:1], length=cut.half)
    length = None if cut.parts.coded else cut.half
    return Change(_seen(cut, capture, watch), call=call, rows=(0,), length=length)


def _change_position(cut: _Cut, capture: Capture) -> Change:
    tables = _tables(cut.parts)
    lengths = frozenset((len(cut.columns), _decoded(capture)))
    other = OtherPositions(tables, bool(cut.parts.intent.turned), lengths)
    return Change(_seen(cut, capture, _written(tables, cut.real)), other)


def _change_context(cut: _Cut, capture: Capture) -> Change:
    """Every other token."""
    even = torch.arange(cut.real.shape[1], device=cut.real.device) % 2 == 0
    outs = [layer.attention_out for layer in cut.parts.layers]
    weights = [m.weight for m in outs if m is not None and isinstance(m.weight, torch.Tensor)]
    where = even & cut.real
    watch = _written(weights, cut.real & ~even & where.any(dim=1, keepdim=True))
    return Change(_seen(cut, capture, watch), _tokens(cut, where))


def _written(weights: Iterable[torch.Tensor], watch: torch.Tensor) -> torch.Tensor:
    """Nothing to watch as long as all of ``weights`` are still the zeros some models begin with."""
    tops = [strided(w, 1024).abs().amax() for w in weights]
    return watch & (torch.stack(tops).amax() > 0) if tops else watch


_MAKERS = {
    "padding": _change_padding,
    "future": _change_future,
    "packing": _change_packing,
    "batch": _change_batch,
    "trim": _change_trim,
    "position": _change_position,
    "context": _change_context,
}


# -- over a run -----------------------------------------------------------------------------------


@dataclass
class Counterfactuals:
    """Which counterfactuals are still run. ``kinds``: those possible on the first batch.

    ``failed``: those that the model could not be run for; ``notes``: what is to be told of that.
    """

    kinds: tuple[str, ...] | None = None
    failed: set[str] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)

    def keep(self, parts: ModelParts, capture: Capture, number: int) -> Kept | None:
        """Copy what the counterfactual of sample ``number`` needs; None where there is none, or
        nothing in this batch that it could be seen at."""
        try:
            if self.kinds is None:
                self.kinds = tuple(k for k in KINDS if not why_not(k, parts, capture))
            kind = due(number, self.kinds)
            if kind is None or kind in self.failed or why_not(kind, parts, capture):
                return None
            kept = keep(kind, parts, capture)
            watch = kept.change.watch
            # On the CPU it costs no waiting to see that there is nothing to compare.
            return None if watch.is_cpu and not watch.any() else kept
        except Exception as error:
            self.give_up(None, error)
            return None

    def give_up(self, kind: str | None, error: BaseException) -> None:
        """Run ``kind`` no more, or none at all."""
        everything = kind is None or isinstance(error, NotRepeatable)
        self.failed.update(KINDS if everything or kind is None else (kind,))
        what = "counterfactual reruns are not made" if everything else f"no {kind} effect"
        said = (
            str(error) if isinstance(error, NotRepeatable) else f"{type(error).__name__}: {error}"
        )
        self.notes.append(f"{what}: {said}")

    def told(self) -> list[str]:
        """The notes since the last call."""
        found, self.notes = self.notes, []
        return found
