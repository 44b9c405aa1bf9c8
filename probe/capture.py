"""One sampled forward: hooks that copy a few rows out of the model while it runs.

The hooks exist only from the opening of a sample to the end of its forward. What they keep are
copies of the picked rows and positions, never a tensor of the model itself.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from probe.anatomy import LayerParts, ModelParts
from probe.attention_call import AttentionCall, Recorder, leave
from probe.quiet import quiet
from probe.rows import Picked, pick
from probe.stopwatch import Stopwatch

OnError = Callable[[BaseException], None]


@dataclass
class Flow:
    """What entered and left a module, at the picked tokens, (r, p, features)."""

    into: torch.Tensor | None = None
    out: torch.Tensor | None = None


@dataclass
class LayerCapture:
    """What one block did. Every field is None where the part is missing or did not run."""

    block: Flow | None = None
    query: Flow | None = None
    key: Flow | None = None
    value: Flow | None = None
    fused: Flow | None = None
    attention_out: Flow | None = None
    attention_dropout: Flow | None = None
    norm_attention: Flow | None = None
    norm_ffn: Flow | None = None
    gate: Flow | None = None
    expand: Flow | None = None
    contract: Flow | None = None
    ffn_dropout: Flow | None = None
    call: AttentionCall | None = None
    kernel_calls: int = 0


_LAYER_FLOWS = (
    "block", "query", "key", "value", "fused", "attention_out", "attention_dropout",
    "norm_attention", "norm_ffn", "gate", "expand", "contract", "ffn_dropout",
)  # fmt: skip


@dataclass
class Batch:
    """What the model was called with; the caller's tensors, not kept past the forward."""

    ids: torch.Tensor | None = None
    mask: torch.Tensor | None = None
    full_mask: torch.Tensor | None = None
    """A mask of more than two dimensions, which the caller built itself."""
    positions: torch.Tensor | None = None
    types: torch.Tensor | None = None
    labels: torch.Tensor | None = None
    items: torch.Tensor | int | None = None
    """Tokens over all micro-batches of the step, where the trainer divides the loss by them."""
    length: int = 0
    size: int = 0


@dataclass
class Capture:
    """Everything one sampled forward yielded."""

    picked: Picked
    batch: Batch
    layers: list[LayerCapture]
    token_embedding: Flow | None = None
    position_embedding: Flow | None = None
    position_ids: torch.Tensor | None = None
    type_embedding: Flow | None = None
    type_ids: torch.Tensor | None = None
    stream: torch.Tensor | None = None
    """Sum of the embeddings before any norm or dropout, (r, p, d)."""
    norm_final: Flow | None = None
    head: Flow | None = None
    logits: torch.Tensor | None = None
    """The model's logits; dropped at the end of the forward."""
    loss: torch.Tensor | None = None


_NAMES = {
    "ids": ("input_ids", "input", "x", "idx", "tokens", "ids"),
    "mask": ("attention_mask", "mask", "padding_mask"),
    "positions": ("position_ids",),
    "types": ("token_type_ids",),
    "labels": ("labels", "targets", "target"),
}


def read_batch(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Batch | None:
    """Name the arguments of a call of the model. None where there is nothing token-like in it."""
    try:
        bound = inspect.signature(model.forward).bind_partial(*args, **kwargs).arguments
    except (TypeError, ValueError):
        bound = dict(kwargs)
        bound.update({f"_{i}": value for i, value in enumerate(args)})
    flat = dict(bound)
    for name, value in bound.items():
        if isinstance(value, dict) and name in ("kwargs", "inputs"):
            flat.update(value)
    found: dict[str, torch.Tensor] = {}
    for role, names in _NAMES.items():
        for name in names:
            value = flat.get(name)
            if isinstance(value, torch.Tensor):
                found[role] = value
                break
    ids = found.get("ids")
    if ids is None or ids.dim() != 2 or ids.is_floating_point():
        ids = next((v for v in flat.values() if _is_ids(v)), None)
        embeds = flat.get("inputs_embeds")
        if ids is None and not isinstance(embeds, torch.Tensor):
            return None
        shape = ids.shape if ids is not None else embeds.shape  # type: ignore[union-attr]
    else:
        shape = ids.shape
    mask = found.get("mask")
    fits = mask is not None and mask.shape == shape[:2]
    return Batch(
        ids=ids,
        mask=mask if fits else None,
        full_mask=mask if mask is not None and mask.dim() > 2 else None,
        positions=found.get("positions"),
        types=found.get("types"),
        labels=found.get("labels"),
        items=flat.get("num_items_in_batch"),
        size=int(shape[0]),
        length=int(shape[1]),
    )


def _is_ids(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.dim() == 2 and not value.is_floating_point()


class Capturing:
    """Installs the hooks of one sample and removes them; ``capture`` fills while the model runs."""

    def __init__(
        self, parts: ModelParts, batch: Batch, on_error: OnError, watch: Stopwatch
    ) -> None:
        self._parts = parts
        self._stopwatch = watch
        self._on_error = on_error
        self._handles: list[Any] = []
        self._recorders: dict[int, Recorder] = {}
        self._flows: dict[nn.Module, Flow] = {}
        self._order: list[nn.Module] = []
        self._watched: set[nn.Module] = set()
        device = next(parts.root.parameters()).device
        with watch, quiet():
            picked = pick(batch.size, batch.length, batch.mask, device)
        self.capture = Capture(picked, batch, [LayerCapture() for _ in parts.layers])
        self._install()

    def close(self) -> Capture:
        """Remove every hook and hand over what was captured by a forward that ran to its end.

        Settles the anatomy by the order of calls, where that is still open: which norm is which
        is known only now, so flows are kept by module until here.
        """
        self.remove()
        parts, capture, flow = self._parts, self.capture, self._flow
        if not parts.settled:
            parts.settle(self._order)
        for layer, kept in zip(parts.layers, capture.layers, strict=True):
            for name in _LAYER_FLOWS:
                setattr(kept, name, flow(getattr(layer, name)))
            recorder = self._recorders.get(layer.index)
            if recorder is not None:
                kept.kernel_calls = recorder.count
                kept.call = recorder.calls[0] if recorder.calls else None
        capture.token_embedding = flow(parts.token_embedding)
        capture.position_embedding = flow(parts.position_embedding)
        capture.type_embedding = flow(parts.type_embedding)
        capture.norm_final = flow(parts.norm_final)
        capture.head = flow(parts.head)
        capture.stream = self._stream()
        return capture

    def remove(self) -> None:
        """Take every hook off."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        leave(self._recorders.values())

    def _flow(self, module: nn.Module | None) -> Flow | None:
        return self._flows.get(module) if module is not None else None

    def _stream(self) -> torch.Tensor | None:
        """The sum of the embeddings is what enters their norm, else their dropout, else block 0."""
        parts = self._parts
        first = parts.layers[0].block if parts.layers else None
        for module in (parts.embedding_norm, parts.embedding_dropout, first):
            if module is not None:
                flow = self._flow(module)
                return flow.into if flow is not None else None
        return None

    def _install(self) -> None:
        parts = self._parts
        for layer in parts.layers:
            for name in _LAYER_FLOWS:
                self._watch(getattr(layer, name))
            for norm in layer.norms:
                self._watch(norm)
            self._watch_attention(layer)
        for module in (*parts.outer_norms, parts.head, parts.token_embedding):
            self._watch(module)
        self._watch(parts.embedding_dropout)
        for table, name in (
            (parts.position_embedding, "position_ids"),
            (parts.type_embedding, "type_ids"),
        ):
            if table is not None:
                self._watch(table)
                self._watch_ids(table, name)

    def _watch(self, module: nn.Module | None) -> None:
        """Keep what enters and leaves a module in its first call, and its place in the order."""
        if module is None or module in self._watched:
            return
        self._watched.add(module)
        take = self.capture.picked.take

        def before(module: nn.Module, args: tuple[Any, ...]) -> None:
            self._order.append(module)

        def after(module: nn.Module, args: tuple[Any, ...], kwargs: Any, out: Any) -> None:
            try:
                if module in self._flows:
                    return
                first = args[0] if args else next(iter(kwargs.values()), None)
                result = out[0] if isinstance(out, tuple) else out
                with self._stopwatch, quiet():
                    self._flows[module] = Flow(
                        take(first) if isinstance(first, torch.Tensor) else None,
                        take(result) if isinstance(result, torch.Tensor) else None,
                    )
            except Exception as error:
                self._on_error(error)

        if not self._parts.settled:
            self._handles.append(module.register_forward_pre_hook(before))
        self._handles.append(module.register_forward_hook(after, with_kwargs=True))

    def _watch_attention(self, layer: LayerParts) -> None:
        module = layer.attention
        if module is None:
            return
        recorder = self._recorders[layer.index] = Recorder(self.capture.picked, self._stopwatch)

        def before(module: nn.Module, args: tuple[Any, ...]) -> None:
            self._order.append(module)
            recorder.__enter__()

        def after(module: nn.Module, args: tuple[Any, ...], out: Any) -> None:
            leave([recorder])
            failure, recorder.failure = recorder.failure, None
            if failure is not None:
                self._on_error(failure)

        self._handles.append(module.register_forward_pre_hook(before))
        self._handles.append(module.register_forward_hook(after, always_call=True))

    def _watch_ids(self, table: nn.Module, name: str) -> None:
        capture = self.capture

        def before(module: nn.Module, args: tuple[Any, ...]) -> None:
            try:
                if args and isinstance(args[0], torch.Tensor):
                    with self._stopwatch, quiet():
                        setattr(capture, name, capture.picked.take_ids(args[0]))
            except Exception as error:
                self._on_error(error)

        self._handles.append(table.register_forward_pre_hook(before))


def read_output(output: Any) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """(loss, logits) of what a model returned: a transformers output, a dict, a tuple, a tensor."""
    if isinstance(output, torch.Tensor):
        return (output, None) if output.dim() == 0 else (None, output)
    get = output.get if isinstance(output, dict) else lambda name: getattr(output, name, None)
    if isinstance(output, dict) or hasattr(output, "logits") or hasattr(output, "loss"):
        loss, logits = get("loss"), get("logits")
        return (
            loss if isinstance(loss, torch.Tensor) and loss.dim() == 0 else None,
            logits if isinstance(logits, torch.Tensor) else None,
        )
    if isinstance(output, (tuple, list)):
        tensors = [v for v in output if isinstance(v, torch.Tensor)]
        loss = next((v for v in tensors if v.dim() == 0 and v.is_floating_point()), None)
        logits = next((v for v in tensors if v.dim() in (2, 3) and v.is_floating_point()), None)
        return loss, logits
    return None, None
