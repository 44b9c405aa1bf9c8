"""What a model was called with and what it returned, read from its arguments by their names."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from probe.rows import Picked, pick


@dataclass
class Batch:
    """What the model was called with; the caller's tensors, not kept past the forward."""

    ids: torch.Tensor | None = None
    mask: torch.Tensor | None = None
    full_mask: torch.Tensor | None = None
    """A mask of four dimensions, which the caller built itself."""
    memory_mask: torch.Tensor | None = None
    """(batch, length), nonzero at real ones of the states that cross-attention reads: of a decoder
    the encoder's, else only where the caller gave one for them alone."""
    positions: torch.Tensor | None = None
    types: torch.Tensor | None = None
    labels: torch.Tensor | None = None
    items: torch.Tensor | int | None = None
    """Tokens over all micro-batches of the step, where the trainer divides the loss by them."""
    length: int = 0
    size: int = 0
    turned: Batch | None = None
    """The same, should the caller's ids be (length, batch); None where that is known."""
    other_mask: bool = False
    """There was a mask that does not have one entry per state."""
    decoder: Batch | None = None
    """What the decoder of an encoder-decoder works on: its ids where given, mask, labels."""
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    """The arguments themselves."""


_NAMES = {
    "ids": ("input_ids", "input", "x", "idx", "tokens", "ids", "src"),
    "mask": ("attention_mask", "mask", "padding_mask"),
    "ignored": ("src_key_padding_mask", "key_padding_mask", "src_padding_mask"),
    "positions": ("position_ids",),
    "types": ("token_type_ids",),
    "labels": ("labels", "targets", "target"),
    "decoder_ids": ("decoder_input_ids", "tgt"),
    "decoder_mask": ("decoder_attention_mask",),
    "memory_mask": ("encoder_attention_mask",),
    "memory_ignored": ("memory_key_padding_mask",),
}


def read_batch(
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *,
    torch_masks: bool = False,
    sequence_first: bool = False,
) -> Batch | None:
    """Name the arguments of a call of the model. None where there is nothing token-like in it.

    ``torch_masks``: a bool padding mask is True at padding, as torch's own modules take it.
    ``sequence_first``: token ids are (length, batch).
    """
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
        others = {id(v) for role, v in found.items() if role not in ("ids", "decoder_ids")}
        ids = next((v for v in flat.values() if _is_ids(v) and id(v) not in others), None)
        embeds = flat.get("inputs_embeds")
        if ids is None and not isinstance(embeds, torch.Tensor):
            return _without_tokens(found, flat)
        shape = ids.shape if ids is not None else embeds.shape  # type: ignore[union-attr]
    else:
        shape = ids.shape
    if sequence_first and ids is not None:
        ids, shape = ids.t(), torch.Size((shape[1], shape[0]))
    mask, ignored = found.get("mask"), found.get("ignored")
    full = mask if mask is not None and mask.dim() == 4 else None
    own = mask is not None and mask is not flat.get("attention_mask")
    if torch_masks and own and mask is not None and mask.dtype == torch.bool:
        mask, ignored = None, mask if ignored is None else ignored
    if ignored is not None and ignored.dim() == 2:
        mask = _shown(ignored)
    fits = mask is not None and mask.shape == shape[:2]
    memory, hidden = found.get("memory_mask"), found.get("memory_ignored")
    memory = memory if hidden is None else _shown(hidden)
    decoder = _decoder_batch(found, flat.get("num_items_in_batch"))
    if decoder is not None:
        decoder.memory_mask = memory if memory is not None or not fits else mask
    return Batch(
        ids=ids,
        mask=mask if fits else None,
        full_mask=full,
        memory_mask=memory,
        positions=found.get("positions"),
        types=found.get("types"),
        labels=found.get("labels"),
        items=flat.get("num_items_in_batch"),
        size=int(shape[0]),
        length=int(shape[1]),
        decoder=decoder,
        args=args,
        kwargs=kwargs,
    )


def _shown(ignored: torch.Tensor) -> torch.Tensor:
    """Float masks of torch's own modules hold 0 at tokens and -inf at padding."""
    return (ignored == 0) if ignored.dtype != torch.bool else ~ignored


def _without_tokens(found: dict[str, torch.Tensor], flat: dict[str, Any]) -> Batch | None:
    """Of images, sound or features only the number of rows is known until the blocks see them."""
    tensors = (v for v in flat.values() if isinstance(v, torch.Tensor))
    states = next((v for v in tensors if v.is_floating_point() and v.dim() >= 2), None)
    if states is None:
        return None
    mask = found.get("mask")
    return Batch(
        mask=mask if mask is not None and mask.dim() == 2 else None,
        labels=found.get("labels"),
        size=int(states.shape[0]),
        decoder=_decoder_batch(found, flat.get("num_items_in_batch")),
    )


def _decoder_batch(found: dict[str, torch.Tensor], items: Any) -> Batch | None:
    """Read from the decoder's own ids, else from the labels that it makes them of."""
    ids, labels = found.get("decoder_ids"), found.get("labels")
    known = ids if ids is not None else labels
    if known is None or known.dim() != 2:
        return None
    mask = found.get("decoder_mask")
    return Batch(
        ids=ids,
        mask=mask if mask is not None and mask.shape == known.shape else None,
        labels=labels,
        items=items,
        size=int(known.shape[0]),
        length=int(known.shape[1]),
    )


def picked_of(batch: Batch, device: torch.device, sequence_first: bool) -> Picked:
    """The rows and positions to look at. ``sequence_first``: states come as (length, batch, d)."""
    beside = batch.memory_mask
    if beside is not None and (beside.dim() != 2 or beside.shape[0] != batch.size):
        beside = None
    return pick(batch.size, batch.length, batch.mask, device, sequence_first, beside)


def _is_ids(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.dim() == 2 and not value.is_floating_point()


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
