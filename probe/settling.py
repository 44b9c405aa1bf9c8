"""Roles that the module tree does not tell, from the order of calls in the first observed forward.

Which norm comes before what, which dropout closes a branch, which of several embedding tables is
the one that is used. Roles that the user named are left alone.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Iterator, Sequence

import torch
from torch import nn

from probe.adapters import parts_within
from probe.anatomy import LayerParts, ModelParts, Stack, is_norm
from probe.turns import Turns

Call = tuple[nn.Module, bool]
"""A module, and whether its forward began (True) or ended."""


class Handed:
    """Which norm was given a tensor that a module gave, or that another norm was given. Tensors
    are known by weak references: an address alone is soon used again."""

    def __init__(self) -> None:
        self._gave: dict[int, tuple[weakref.ref[torch.Tensor], nn.Module]] = {}
        self._took: dict[int, tuple[weakref.ref[torch.Tensor], nn.Module]] = {}
        self.source: dict[nn.Module, nn.Module] = {}
        self.sibling: dict[nn.Module, nn.Module] = {}
        self._numbers = itertools.count()
        self._numbered: dict[int, tuple[weakref.ref[torch.Tensor], int]] = {}
        self._given: dict[nn.Module, tuple[int, int]] = {}

    def see(self, module: nn.Module, first: object, result: object, second: object = None) -> None:
        """A module was called with ``first`` (and ``second``) and gave ``result``."""
        self._given.setdefault(module, (self._number(first), self._number(second)))
        if isinstance(first, torch.Tensor) and is_norm(module):
            for known, found in ((self._gave, self.source), (self._took, self.sibling)):
                ref, other = known.get(id(first), (None, module))
                if ref is not None and ref() is first and other is not module:
                    found.setdefault(module, other)
            self._took[id(first)] = weakref.ref(first), module
        if isinstance(result, torch.Tensor):
            self._gave.setdefault(id(result), (weakref.ref(result), module))
            if self._gave[id(result)][0]() is not result:
                self._gave[id(result)] = weakref.ref(result), module

    def _number(self, given: object) -> int:
        """The same for the same tensor; -1 for what is none."""
        if not isinstance(given, torch.Tensor):
            return -1
        ref, number = self._numbered.get(id(given), (None, 0))
        if ref is None or ref() is not given:
            number = next(self._numbers)
            self._numbered[id(given)] = weakref.ref(given), number
        return number

    def crosses(self, layer: LayerParts) -> bool | None:
        """Whether an attention's keys are made of other states than its queries; None: not seen."""
        nothing = (-1, -1)
        if layer.packed is not None:
            queries, keys = self._given.get(layer.packed, nothing)
        else:
            made = (layer.query, layer.key or layer.fused)
            queries, keys = (self._given.get(m, nothing)[0] if m else -1 for m in made)
        return None if -1 in (queries, keys) else queries != keys


class Calls:
    """The order in which modules were first entered and first left."""

    def __init__(self, calls: list[Call]) -> None:
        self.entered: dict[nn.Module, int] = {}
        self.left: dict[nn.Module, int] = {}
        for place, (module, began) in enumerate(calls):
            (self.entered if began else self.left).setdefault(module, place)

    def enclose(self, block: nn.Module) -> None:
        """A list of parts is never called itself: it lasts from the first of them to the last."""
        if not isinstance(block, nn.ModuleList):
            return
        parts = list(block.modules())[1:]
        entered = [self.entered[part] for part in parts if part in self.entered]
        left = [self.left[part] for part in parts if part in self.left]
        if entered and left:
            self.entered[block], self.left[block] = min(entered), max(left)

    def between(self, start: int, end: float, modules: Iterator[nn.Module]) -> list[nn.Module]:
        """Those of ``modules`` that were left after ``start`` and before ``end``, in order."""
        inside = [m for m in modules if start < self.left.get(m, -1) < end]
        return sorted(inside, key=self.left.__getitem__)


def settle(
    parts: ModelParts, order: list[Call], handed: Handed, turns: Sequence[Turns] = ()
) -> None:
    """Give norms, dropouts and tables their roles. Called once, after a forward ran to its end.

    ``turns``: of each stack; a block that ran several times becomes as many layers.
    """
    parts.settled = True
    calls = Calls(order)
    for layer in parts.layers:
        calls.enclose(layer.block)
    for layer in parts.layers:
        _second_attention(parts, layer, calls, handed)
        _norms(parts, layer, calls)
        for part in layer.attentions:
            _branches(parts, part, calls)
            part.plain_sums = _ends_of_normed_branches(part, handed, calls)
        _norms_of_cross(parts, layer, calls)
    for stack in parts.stacks:
        _final_norm(parts, stack, calls)
    _embeddings(parts, calls)
    _head(parts, calls)
    for stack, seen in zip(parts.stacks, turns, strict=False):
        known = {layer.block: layer for layer in stack.layers}
        again = [known[block].as_turn(at, turn) for at, (block, turn) in enumerate(seen.order())]
        stack.layers = again or stack.layers


def _second_attention(parts: ModelParts, layer: LayerParts, calls: Calls, handed: Handed) -> None:
    """Of two attentions that over other states is the second one, in whichever order they stand."""
    cross = layer.cross
    if cross is None or parts.fixed & {"attention", "cross_attention"}:
        return
    ran = (cross.attention, cross.query, cross.packed)
    if not any(module in calls.left for module in ran if module is not None):
        layer.cross = None  # as in a decoder that is trained by itself
    elif handed.crosses(cross) is False:
        if handed.crosses(layer):
            layer.exchange()
        else:
            layer.cross = None


def _norms_of_cross(parts: ModelParts, layer: LayerParts, calls: Calls) -> None:
    """The norm before the second attention, and which norm is its own."""
    cross = layer.cross
    began = calls.entered.get(cross.attention) if cross and cross.attention else None
    if cross is None or began is None:
        return
    before = [n for n in layer.norms if calls.left.get(n, began) < began]
    cross.norm_before = max(before, key=calls.left.__getitem__) if before else None
    own = cross.norm_before if parts.norm_order == "pre" else cross.norm_next
    if "norm_cross" not in parts.fixed:
        shared = own in (layer.norm_attention, layer.norm_ffn)
        cross.norm_attention = None if shared else own


def _norms(parts: ModelParts, layer: LayerParts, calls: Calls) -> None:
    rank = calls.entered
    called = sorted((norm for norm in layer.norms if norm in rank), key=rank.__getitem__)
    # The norm may stand inside the attention module.
    reads = (layer.query, layer.fused, layer.attention)
    attention = next((rank[m] for m in reads if m is not None and m in rank), None)
    if len(called) >= 2 and attention is not None:
        if "norm_attention" not in parts.fixed:
            layer.norm_attention = called[0]
        if "norm_ffn" not in parts.fixed:
            layer.norm_ffn = called[-1]
        parts.norm_order = "pre" if rank[called[0]] < attention else "post"
    elif len(called) == 1 and "norm_attention" not in parts.fixed:
        layer.norm_attention = called[0]


def _branches(parts: ModelParts, layer: LayerParts, calls: Calls) -> None:
    """Where both branches end: the norm that follows, and the dropout that closes each."""
    attended = _end_of_attention(layer, calls)
    if attended is not None:
        after = [n for n in layer.norms if calls.entered.get(n, -1) > attended]
        layer.norm_next = min(after, key=calls.entered.__getitem__) if after else None
        end = calls.entered[layer.norm_next] if layer.norm_next else calls.left.get(layer.block)
        drop, outlet = _closing(parts, layer, calls, attended, end)
        role = "cross_attention_dropout" if layer.crossing else "attention_dropout"
        if role not in parts.fixed:
            layer.attention_dropout = drop
        layer.attention_outlet = outlet
    began, ended = (
        order.get(module) if module is not None else None
        for order, module in (
            (calls.entered, layer.expand or layer.experts),
            (calls.left, layer.contract or layer.experts),
        )
    )
    if began is None or ended is None:
        return
    before = [n for n in layer.norms if calls.left.get(n, began) < began]
    layer.norm_before_ffn = max(before, key=calls.left.__getitem__) if before else None
    later = [calls.entered[n] for n in layer.norms if calls.entered.get(n, -1) > ended]
    end = min(later) if later else calls.left.get(layer.block)
    drop, layer.ffn_outlet = _closing(parts, layer, calls, ended, end)
    if "ffn_dropout" not in parts.fixed:
        layer.ffn_dropout = drop
    inner = calls.between(began, ended, _dropouts(layer.block))
    layer.inner_dropout = inner[0] if inner else None


def _ends_of_normed_branches(layer: LayerParts, handed: Handed, calls: Calls) -> bool:
    """Find what ends a branch on which a norm stands. False where the sums cannot be told: both
    branches read one stream, or a norm reads what may be more than a branch."""
    pair = {layer.norm_attention, layer.norm_ffn}
    if any(handed.sibling.get(n) in pair - {n} for n in pair if n in handed.sibling):
        return False
    projections = {layer.attention_out, layer.packed, layer.attention_dropout} - {None}
    contracting = {layer.contract, layer.experts, layer.ffn_dropout} - {None}
    wholes = {layer.attention, layer.ffn} - {None}
    on_branch = {}
    for norm in layer.norms:
        source = handed.source.get(norm)
        if source in projections or source in contracting:
            on_branch[norm] = source in projections
        elif source in wholes:
            return False  # a whole module may have added the stream to its branch
    normed = [norm for norm, attends in on_branch.items() if attends]
    normed_ffn = [norm for norm, attends in on_branch.items() if not attends]
    crossed = layer.cross is not None or layer.crossing
    if on_branch and (crossed or len(normed) > 1 or len(normed_ffn) > 1):
        return False
    began = calls.entered.get(layer.expand or layer.experts or layer.block, -1)
    if normed:
        layer.attention_last = _last(layer, normed[0], began, calls)
        if layer.norm_before_ffn is normed[0]:
            layer.norm_before_ffn = None
        layer.attention_outlet = None
    if normed_ffn:
        end = calls.left.get(layer.block, len(calls.left) + len(calls.entered))
        layer.ffn_last = _last(layer, normed_ffn[0], end, calls)
        layer.ffn_outlet = None
    return True


def _last(layer: LayerParts, norm: nn.Module, end: int, calls: Calls) -> nn.Module:
    """The dropout that follows a norm on a branch, else the norm."""
    drops = calls.between(calls.left[norm], end, _dropouts(layer.block))
    return drops[-1] if drops else norm


def _end_of_attention(layer: LayerParts, calls: Calls) -> int | None:
    """When the output projection was done. A packed one never runs as a module of its own."""
    for module in (layer.attention_out, layer.attention):
        if module is not None and module in calls.left:
            return calls.left[module]
    return None


def _closing(
    parts: ModelParts, layer: LayerParts, calls: Calls, start: int, end: float | None
) -> tuple[nn.Module | None, nn.Module | None]:
    """(the last dropout, the last module of any kind) between a projection and the next norm.

    The second only where no config states how the model is built: there a module may do more
    after its projection than its children show.
    """
    limit = float("inf") if end is None else end
    drops = calls.between(start, limit, _dropouts(layer.block))
    if parts.intent.family:
        return (drops[-1] if drops else None), None
    inside = (m for m in layer.block.modules() if m is not layer.block)
    every = calls.between(start, limit, inside)
    return (drops[-1] if drops else None), (every[-1] if every else None)


def _dropouts(block: nn.Module) -> Iterator[nn.Module]:
    return (m for _, m in parts_within(block) if isinstance(m, nn.Dropout))


def _final_norm(parts: ModelParts, stack: Stack, calls: Calls) -> None:
    if not stack.layers or parts.norm_order != "pre" or "norm_final" in parts.fixed:
        return
    last = calls.entered.get(stack.layers[-1].block)
    if last is None:
        return
    starts = (calls.entered.get(s.layers[0].block, -1) for s in parts.stacks if s.layers)
    end = min((start for start in starts if start > last), default=float("inf"))
    after = [m for m in parts.outer_norms if last < calls.entered.get(m, -1) < end]
    stack.norm_final = min(after, key=calls.entered.__getitem__) if after else None


def _embeddings(parts: ModelParts, calls: Calls) -> None:
    main = parts.main
    first = calls.entered.get(main.layers[0].block, -1) if main and main.layers else -1
    if first >= 0 and "embedding_norm" not in parts.fixed:
        norms = (m for m in parts.outer_norms if calls.entered.get(m, first) < first)
        parts.embedding_norm = next(norms, None)
    table = parts.token_embedding
    if table is None or table in calls.entered or "token_embedding" in parts.fixed:
        return
    # A shared table may stand under several names; the one that ran is the one to watch. Untied,
    # it may not run at all, and the stacks have tables of their own: the first reads what the
    # model is given.
    ran = [t for t in parts.tables if t in calls.entered and t.weight.shape == table.weight.shape]
    same = [t for t in ran if t.weight is table.weight]
    parts.token_embedding = min(same or ran, key=calls.entered.__getitem__, default=table)


def _head(parts: ModelParts, calls: Calls) -> None:
    """Without a config that states the classes, the head is the last outer linear that ran."""
    if parts.intent.family or "head" in parts.fixed or parts.head in calls.left:
        return
    ran = [m for m in parts.outer_linears if m in calls.left]
    parts.head = max(ran, key=calls.left.__getitem__) if ran else parts.head


def watched_to_settle(parts: ModelParts) -> Iterator[nn.Module]:
    """The modules whose calls :func:`settle` wants to see, beside those always watched."""
    for layer in parts.layers:
        if parts.intent.family:
            yield from _dropouts(layer.block)
        else:
            yield from (m for m in layer.block.modules() if m is not layer.block)
    yield from itertools.chain(parts.tables, parts.outer_norms, parts.outer_linears)
