"""Faults outside the blocks: embeddings, positions, the output."""

from __future__ import annotations

from collections.abc import Callable

import torch
from fault_target import Faults, Inapplicable, Target, into, out_of

from probe.anatomy import weight_of


def rows_zero(at: Target) -> None:
    table = at.parts.token_embedding
    table.weight.data[20:70] = 0.0


def rows_small(at: Target) -> None:
    at.parts.token_embedding.weight.data[20:45] *= 0.05


def dims_zero(at: Target) -> None:
    at.parts.token_embedding.weight.data[:, :5] = 0.0


def lookup_changed(at: Target) -> None:
    out_of(at.parts.token_embedding, lambda out: out * 1.5)


def types_scaled(at: Target) -> None:
    out_of(at.parts.type_embedding, lambda out: out * 3.0)


def positions_stuck(at: Target) -> None:
    into(at.parts.position_embedding, lambda ids: ids // 4)


def positions_off(at: Target) -> None:
    if at.parts.position_embedding is not None:
        into(at.parts.position_embedding, lambda ids: ids + 3)
        return
    rotate(at, lambda places: places + 3)


def positions_missing(at: Target) -> None:
    if at.parts.position_embedding is not None:
        out_of(at.parts.position_embedding, torch.zeros_like)
        return
    rotate(at, torch.zeros_like)


def positions_wrong(at: Target) -> None:
    rotate(at, lambda places: places * 2)


def positions_repeated(at: Target) -> None:
    if at.parts.position_embedding is not None:
        positions_stuck(at)
        return
    rotate(at, lambda places: places // 4)


def rotate(at: Target, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    rotary = next((m for n, m in at.model.named_modules() if n.endswith("rotary_emb")), None)
    if rotary is None:
        raise Inapplicable
    original = rotary.forward

    def forward(x, position_ids, *args, **kwargs):
        return original(x, change(position_ids), *args, **kwargs)

    rotary.forward = forward


def head_scaled(at: Target) -> None:
    out_of(at.parts.head, lambda out: out * 1.5)


def head_rows_zero(at: Target) -> None:
    weight = weight_of(at.parts.head)
    weight.data[: max(1, len(weight) // 10)] = 0.0


def head_rows_small(at: Target) -> None:
    weight = weight_of(at.parts.head)
    if len(weight) <= 2:
        raise Inapplicable
    weight.data[: len(weight) // 10] *= 0.05


def loss_scaled(at: Target) -> None:
    original = at.model.forward

    def forward(*args, **kwargs):
        out = original(*args, **kwargs)
        if isinstance(out, tuple):
            raise Inapplicable
        out.loss = out.loss * 1.2
        return out

    at.model.forward = forward


MADE_FOR: Faults = {
    "embedding/lookup_error": (lookup_changed,),
    "embedding/wrong_rows": (lookup_changed,),
    "embedding/wrong_dims": (lookup_changed,),
    "embedding/zero_rows": (rows_zero,),
    "embedding/zero_dims": (dims_zero,),
    "embedding/type_scale": (types_scaled,),
    "embedding/small_rows": (rows_small,),
    "positional/missing": (positions_missing,),
    "positional/index_error": (positions_off,),
    "positional/repeated": (positions_repeated,),
    "positional/offset": (positions_off,),
    "positional/rotation_error": (positions_wrong,),
    "output/head_error": (head_scaled,),
    "output/head_gain": (head_scaled,),
    "output/zero_rows": (head_rows_zero,),
    "output/loss_error": (loss_scaled,),
    "output/small_rows": (head_rows_small,),
}
