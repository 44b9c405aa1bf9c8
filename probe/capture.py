"""One sampled forward: hooks that copy a few rows out of the model while it runs.

The hooks exist only from the opening of a sample to the end of its forward. What they keep are
copies of the picked rows and positions, never a tensor of the model itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from probe.adapters import Term, adapters_of
from probe.anatomy import LayerParts, ModelParts, Stack
from probe.attention_call import Recorder, leave
from probe.batch import Batch, picked_of, read_batch
from probe.captured import LAYER_FLOWS, Capture, Flow, LayerCapture
from probe.compiled import calls_compiled
from probe.crossing import Crossing
from probe.gradient_path import Path, path_of
from probe.quiet import quiet
from probe.routing import RouterWatch
from probe.rows import Picked
from probe.settling import Call, Handed, settle, watched_to_settle
from probe.stopwatch import Stopwatch
from probe.turns import MOST, Turns

OnError = Callable[[BaseException], None]


class Capturing:
    """Installs the hooks of one sample and removes them; ``capture`` fills while the model runs."""

    def __init__(
        self, parts: ModelParts, batch: Batch, on_error: OnError, watch: Stopwatch
    ) -> None:
        self._parts = parts
        self._stopwatch = watch
        self._on_error = on_error
        self._handles: list[Any] = []
        self._turns = [Turns([layer.block for layer in stack.layers]) for stack in parts.stacks]
        self._recorders: dict[tuple[nn.Module, int], Recorder] = {}
        self._flows: dict[tuple[nn.Module, int], Flow] = {}
        self._order: list[Call] = []
        self._handed = Handed()
        self._early: list[Callable[[], None]] | None = [] if batch.turned is not None else None
        self._watched: set[nn.Module] = set()
        self._attentions: set[nn.Module] = set()
        self._routers: dict[nn.Module, RouterWatch] = {}
        device = next(parts.root.parameters()).device
        with watch, quiet():
            picked = _picked(parts, batch, device)
            self.capture = Capture(picked, batch, [LayerCapture() for _ in parts.layers])
            for stack in parts.stacks:
                if stack is not parts.main:
                    other = (batch.decoder if stack.name == "decoder" else None) or Batch()
                    self.capture.others[stack.name] = _picked(parts, other, device), other
            if _decodes_features(parts, batch):
                assert batch.decoder is not None
                self.capture.others[""] = _picked(parts, batch.decoder, device), batch.decoder
            self._crossing = Crossing(parts, self.capture)
        self._install()

    def close(self) -> Capture:
        """Remove every hook and hand over what was captured by a forward that ran to its end.

        Settles the anatomy by the order of calls, where that is still open: which norm is which
        is known only now, so flows are kept by module until here.
        """
        self.remove()
        parts, capture, flow = self._parts, self.capture, self._flow
        watched_as = {part.attention: part.crossing for part in parts.attentions}
        if not parts.settled:
            settle(parts, self._order, self._handed, self._turns)
            capture.layers = [LayerCapture() for _ in parts.layers]
        self._count_heads()
        for layer, kept in zip(parts.layers, capture.layers, strict=True):
            kept.cross = LayerCapture() if layer.cross is not None else None
            for part, found in zip(layer.attentions, (kept, kept.cross), strict=False):
                # An attention that turned out to be the other one was watched as what it is not.
                if found is not None and watched_as.get(part.attention) == part.crossing:
                    self._gather(part, found)
        capture.token_embedding = flow(parts.token_embedding)
        capture.position_embedding = flow(parts.position_embedding)
        capture.type_embedding = flow(parts.type_embedding)
        final = {site: flow(module) for site, module in parts.final_norms}
        capture.final_norms = {site: seen for site, seen in final.items() if seen is not None}
        capture.head = flow(parts.head)
        capture.routing = {
            layer.site("router"): self._routers[layer.router].routed
            for layer in parts.layers
            if layer.router in self._routers and layer.turn == 0
        }
        capture.stream = self._stream()
        return capture

    def _gather(self, layer: LayerParts, kept: LayerCapture) -> None:
        for name in LAYER_FLOWS:
            setattr(kept, name, self._flow(getattr(layer, name), layer.turn))
        recorder = None
        if layer.attention is not None:
            recorder = self._recorders.get((layer.attention, layer.turn))
        if recorder is not None:
            kept.kernel_calls = recorder.count / max(1, recorder.entered)
            kept.call = recorder.calls[0] if recorder.calls else None

    def passed(self, module: nn.Module) -> bool:
        """Whether the forward got past this module; of a list, which is never called, past any of
        its parts."""
        parts = module.modules() if isinstance(module, nn.ModuleList) else (module,)
        return any((part, 0) in self._flows for part in parts)

    def remove(self) -> None:
        """Take every hook off."""
        self._early = None
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        leave(self._recorders.values())

    def _count_heads(self) -> None:
        """Learn how many heads ran."""
        parts = self._parts
        for recorder in self._recorders.values():
            for call in recorder.calls[:1]:
                parts.heads_seen, parts.head_dim_seen = call.heads, call.q.shape[-1]
                parts.kv_heads_seen = call.k.shape[1]

    def _flow(self, module: nn.Module | None, turn: int = 0) -> Flow | None:
        return self._flows.get((module, turn)) if module is not None else None

    def _call(self, module: nn.Module) -> tuple[nn.Module, int]:
        """The module, and which call of its block is under way."""
        return module, max((turns.of(module) for turns in self._turns), default=0)

    def _stream(self) -> torch.Tensor | None:
        """The sum of the embeddings is what enters their norm, else their dropout, else block 0."""
        parts = self._parts
        first = parts.main.layers[0].block if parts.main and parts.main.layers else None
        for module in (parts.embedding_norm, parts.embedding_dropout, first):
            if module is not None:
                flow = self._flow(module)
                return flow.into if flow is not None else None
        return None

    def _install(self) -> None:
        parts = self._parts
        if self._early is not None and parts.layers:
            self._watch_shape(_first_part(parts.layers[0].block))
        for turns in self._turns:
            self._watch_turns(turns)
        for stack in parts.stacks:
            if not self.capture.of_stack(stack.name)[1].length and stack.layers:
                self._watch_length(stack)
        for layer in parts.attentions:
            for name in LAYER_FLOWS:
                self._watch(getattr(layer, name), layer.stack)
            for norm in layer.norms:
                self._watch(norm, layer.stack)
            self._watch_attention(layer)
            self._watch_router(layer)
        for stack in parts.stacks:
            self._watch(stack.norm_final, stack.name)
        self._watch(parts.head, "decoder")
        for norm in parts.outer_norms:
            self._watch(norm, parts.stack_of(norm))
        for module in (parts.token_embedding, parts.embedding_dropout):
            of = parts.stack_of(module) if module is not None else ""
            self._watch(module, _BESIDE if self.capture.reads_beside else of)
        for table, name in (
            (parts.position_embedding, "position_ids"),
            (parts.type_embedding, "type_ids"),
        ):
            if table is not None:
                self._watch(table)
                self._watch_ids(table, name)
        if not parts.settled:
            stacks = {m: la.stack for la in parts.layers for m in la.block.modules()}
            for module in watched_to_settle(parts):
                self._watch(module, stacks.get(module, ""))

    def _picked_for(self, stack: str, module: nn.Module, states: object) -> Picked | None:
        if module in self._crossing.of_memory:
            return self._crossing.picked_for(states)
        return self.capture.of_stack(stack)[0]

    def _watch(self, module: nn.Module | None, stack: str = "") -> None:
        """Keep what enters and leaves a module in its first call, and its place in the order."""
        if module is None or module in self._watched:
            return
        self._watched.add(module)
        given = self._watch_adapters(module, stack)

        def before(module: nn.Module, args: tuple[Any, ...]) -> None:
            self._order.append((module, True))

        def after(module: nn.Module, args: tuple[Any, ...], kwargs: Any, out: Any) -> None:
            try:
                if not settled:
                    self._order.append((module, False))
                call = self._call(module)
                if call in self._flows or call[1] >= MOST:
                    return
                first = args[0] if args else next(iter(kwargs.values()), None)
                result = out[0] if isinstance(out, tuple) else out
                second = kwargs.get("key", args[1] if len(args) > 1 else None)
                if not settled:
                    self._handed.see(module, first, result, second)

                def keep() -> None:
                    own = self._picked_for(stack, module, first)
                    crossing = module in self._crossing.attentions
                    other = self._crossing.picked_for(second) if crossing else None
                    self._flows[call] = Flow(
                        _taken(own, first),
                        _taken(own, result),
                        _taken(other, second),
                        given() if given is not None else None,
                        _path(first),
                        _path(result),
                    )

                self._keep(keep)
            except Exception as error:
                self._on_error(error)

        settled = self._parts.settled
        if not settled:
            self._handles.append(module.register_forward_pre_hook(before))
        self._handles.append(module.register_forward_hook(after, with_kwargs=True))

    def _watch_adapters(self, linear: nn.Module, stack: str) -> Callable[[], list[Term]] | None:
        """See what a linear's adapters are given. Returns how to ask for it; None where they are
        of an unknown kind."""
        adapters = adapters_of(linear)
        if adapters is None:
            return None
        seen: dict[nn.Module, torch.Tensor] = {}

        def see(module: nn.Module, args: tuple[Any, ...]) -> None:
            try:
                if (
                    self._call(linear) not in self._flows
                    and args
                    and isinstance(args[0], torch.Tensor)
                ):
                    with self._stopwatch, quiet():
                        picked = self._picked_for(stack, linear, args[0])
                        taken = _taken(picked, args[0])
                    if taken is not None:
                        seen[module] = taken
            except Exception as error:
                self._on_error(error)

        for adapter in adapters:
            self._handles.append(adapter.down.register_forward_pre_hook(see))
        return lambda: [(a, seen[a.down]) for a in adapters if a.down in seen]

    def _watch_attention(self, layer: LayerParts) -> None:
        module = layer.attention
        if module is None or layer.per_head:
            return
        layer.unseen = attention_is_compiled(self._parts, module)
        if layer.unseen:
            self._watch(module, layer.stack)  # when it ran tells which norm comes before what
            return
        if module in self._attentions:
            return
        self._attentions.add(module)
        entered: list[Recorder] = []

        settled = self._parts.settled

        def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if not settled:
                self._crossing.reconsider(module, (*args, *kwargs.values()), self._order)
            self._order.append((module, True))
            call = self._call(module)
            recorder = self._recorders.get(call)
            if recorder is None:
                picked = self.capture.of_stack(layer.stack)[0]
                memory = self._crossing.pick if module in self._crossing.attentions else None
                recorder = self._recorders[call] = Recorder(picked, self._stopwatch, memory)
            entered.append(recorder)
            recorder.entered += 1
            recorder.__enter__()

        def after(module: nn.Module, args: tuple[Any, ...], out: Any) -> None:
            self._order.append((module, False))
            if not entered:
                return
            recorder = entered.pop()
            leave([recorder])
            recorder.forget()
            failure, recorder.failure = recorder.failure, None
            if failure is not None:
                self._on_error(failure)

        self._handles.append(module.register_forward_pre_hook(before, with_kwargs=True))
        self._handles.append(module.register_forward_hook(after, always_call=True))

    def _watch_router(self, layer: LayerParts) -> None:
        if layer.router is None or layer.experts is None or layer.router in self._routers:
            return

        def run(read: Callable[[], None]) -> None:
            try:
                with self._stopwatch, quiet():
                    read()
            except Exception as error:
                self._on_error(error)

        watch = self._routers[layer.router] = RouterWatch(
            layer.experts,
            layer.router,
            lambda: self.capture.of_stack(layer.stack),
            self._parts.intent.shifted_labels,
            run,
        )
        self._handles += watch.handles

    def _watch_turns(self, turns: Turns) -> None:
        """Before all other hooks of a block: which call of it is under way."""

        def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            turns.begins(module, args[0] if args else next(iter(kwargs.values()), None))

        def after(module: nn.Module, args: tuple[Any, ...], out: Any) -> None:
            turns.ended(out[0] if isinstance(out, tuple) and out else out)

        for block in turns.blocks:
            self._handles += [
                block.register_forward_pre_hook(before, with_kwargs=True),
                block.register_forward_hook(after),
            ]

    def _keep(self, keep: Callable[[], None]) -> None:
        """Copy now, and again should the batch turn out to lie the other way round."""
        with self._stopwatch, quiet():
            keep()
        if self._early is not None:
            self._early.append(keep)

    def _watch_shape(self, block: nn.Module) -> None:
        """At the first block the shape of the states tells which way round the ids lie: they may
        be (batch, length) although torch's modules take (length, batch, width)."""

        def before(module: nn.Module, args: tuple[Any, ...]) -> None:
            early, self._early = self._early, None
            batch = self.capture.batch
            if early is None or not args or not isinstance(args[0], torch.Tensor):
                return
            if batch.turned is None or tuple(args[0].shape[:2]) != (batch.size, batch.length):
                return
            try:
                self._parts.ids_sequence_first = True
                with self._stopwatch, quiet():
                    self.capture.batch = batch.turned
                    self.capture.picked = _picked(self._parts, batch.turned, args[0].device)
                    for recorder in self._recorders.values():
                        recorder.picked = self.capture.picked
                    for keep in early:
                        keep()
            except Exception as error:
                self._on_error(error)

        self._handles.append(block.register_forward_pre_hook(before))

    def _watch_length(self, stack: Stack) -> None:
        """How many states a stack works on shows at its first block, where nothing given says."""
        parts, capture = self._parts, self.capture

        def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            known = capture.of_stack(stack.name)[1]
            given = args[0] if args else next(iter(kwargs.values()), None)
            if known.length or not isinstance(given, torch.Tensor) or given.dim() != 3:
                return
            try:
                size, length = given.shape[:2]
                if parts.sequence_first:
                    size, length = length, size
                fits = known.mask is not None and known.mask.shape == (size, length)
                batch = replace(
                    known,
                    size=int(size),
                    length=int(length),
                    mask=known.mask if fits else None,
                    other_mask=stack.intent is not None or (known.mask is not None and not fits),
                )
                with self._stopwatch, quiet():
                    picked = _picked(parts, batch, given.device)
                if stack is parts.main:
                    capture.picked, capture.batch = picked, batch
                else:
                    capture.others[stack.name] = picked, batch
            except Exception as error:
                self._on_error(error)

        first = _first_part(stack.layers[0].block)
        self._handles.append(first.register_forward_pre_hook(before, with_kwargs=True))

    def _watch_ids(self, table: nn.Module, name: str) -> None:
        capture = self.capture

        def before(module: nn.Module, args: tuple[Any, ...]) -> None:
            try:
                if args and isinstance(args[0], torch.Tensor):
                    ids = args[0]
                    self._keep(lambda: setattr(capture, name, capture.picked.take_ids(ids)))
            except Exception as error:
                self._on_error(error)

        self._handles.append(table.register_forward_pre_hook(before))


def attention_is_compiled(parts: ModelParts, attention: nn.Module) -> bool:
    """Whether this attention calls a function compiled by itself: flex attention by its config, or
    what its code has at hand. A mode entered around it would be traced and compiled with it."""
    return parts.intent.attention_implementation == "flex_attention" or calls_compiled(attention)


def _first_part(block: nn.Module) -> nn.Module:
    """What is called first of a block that is a list of parts; else the block."""
    return next(block.children()) if isinstance(block, nn.ModuleList) else block


_BESIDE = "beside"
"""No stack's name: what a model reads beside its only stack."""


def _decodes_features(parts: ModelParts, batch: Batch) -> bool:
    """The only stack is a decoder, over the states of something that is not one; its tokens were
    given by a name of their own."""
    given = batch.decoder is not None and batch.decoder.ids is not None
    return given and len(parts.stacks) == 1 and all(la.cross is not None for la in parts.layers)


def _taken(picked: Picked | None, states: object) -> torch.Tensor | None:
    fits = picked is not None and isinstance(states, torch.Tensor)
    return picked.take_once(states) if fits else None  # type: ignore[union-attr,arg-type]


def _path(states: object) -> Path | None:
    return path_of(states) if isinstance(states, torch.Tensor) else None


def _picked(parts: ModelParts, batch: Batch, device: torch.device) -> Picked:
    return picked_of(batch, device, parts.sequence_first)


def batch_of(parts: ModelParts, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Batch | None:
    """What a call of the model was given, as this model's modules take it."""
    torch_masks = any(layer.packed is not None for layer in parts.layers)
    batch = read_batch(
        parts.root, args, kwargs, torch_masks=torch_masks, sequence_first=parts.ids_sequence_first
    )
    if batch is not None and parts.sequence_first and not parts.settled:
        # Not known yet; the first block's input will tell.
        batch.turned = read_batch(
            parts.root, args, kwargs, torch_masks=torch_masks, sequence_first=True
        )
    return batch
