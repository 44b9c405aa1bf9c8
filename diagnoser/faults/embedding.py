"""Embedding faults: rows zeroed, tokens swapped, segments scaled, dimensions missing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from diagnoser.faults.fault import Injection, Table
from diagnoser.faults.override import edit_parameter, override_forward, shadow_submodule

EMBEDDING = Table("embedding")

_SHARES = (0.1, 0.3, 0.5)


def drawn_rows(injection: Injection, share: float) -> torch.Tensor:
    """A random share of token ids, the padding id left out; at least two."""
    table = injection.anatomy.embedding
    generator = torch.Generator().manual_seed(injection.fault.seed)
    order = torch.randperm(table.num_embeddings, generator=generator)
    if table.padding_idx is not None:
        order = order[order != table.padding_idx]
    return order[: max(2, round(share * table.num_embeddings))]


@EMBEDDING.operator(
    "ETZ",
    "input_initialization",
    "zero a share of token embedding rows",
    layered=False,
    parameter="percentage",
    values=_SHARES,
    moment="start",
)
def zero_rows(injection: Injection) -> None:
    """The rows of randomly drawn tokens start at zero."""
    table = injection.anatomy.embedding
    rows = drawn_rows(injection, injection.number).to(table.weight.device)
    edit_parameter(injection.undo, table.weight, lambda data: data.index_fill_(0, rows, 0.0))  # type: ignore[arg-type]


@EMBEDDING.operator(
    "ESW",
    "input_type",
    "swap a share of token embedding pairs",
    layered=False,
    parameter="percentage",
    values=_SHARES,
)
def swap_tokens(injection: Injection) -> None:
    """Drawn pairs of tokens get each other's rows in every lookup; the table is unchanged.

    Swapping rows of a table that was just initialised at random would change nothing.
    """
    table = injection.anatomy.embedding
    rows = drawn_rows(injection, injection.number)
    rows = rows[: len(rows) // 2 * 2]
    mapping = torch.arange(table.num_embeddings)
    mapping[rows] = rows.view(-1, 2).flip(1).reshape(-1)
    mapping = mapping.to(table.weight.device)

    def build(original: Callable[..., Any]) -> Callable[..., Any]:
        return lambda input: original(mapping[input])

    override_forward(injection.undo, table, build)


@EMBEDDING.operator(
    "ESS",
    "input_type",
    "scale segment/type embeddings",
    layered=False,
    parameter="factor",
    values=(0.5, 2.0, 5.0),
    families=("bert",),
    requires=lambda anatomy: anatomy.segments is not None,
)
def scale_segments(injection: Injection) -> None:
    """Segment embeddings enter the sum ``factor`` times."""
    factor = injection.number

    def build(real: nn.Module) -> Callable[..., Any]:
        return lambda ids: factor * real(ids)

    shadow_submodule(injection.undo, injection.anatomy.positions, "token_type_embeddings", build)


@EMBEDDING.operator(
    "EZD",
    "input_dimension",
    "zero a block of embedding dimensions",
    layered=False,
    parameter="fraction",
    values=_SHARES,
)
def zero_dimensions(injection: Injection) -> None:
    """A contiguous block of every token's embedding is zero, as after padding a narrower table."""
    table = injection.anatomy.embedding
    width = table.embedding_dim
    size = max(1, round(injection.number * width))
    generator = torch.Generator().manual_seed(injection.fault.seed)
    start = int(torch.randint(width - size + 1, (1,), generator=generator))
    kept = torch.ones(width, device=table.weight.device, dtype=table.weight.dtype)
    kept[start : start + size] = 0.0

    def build(original: Callable[..., Any]) -> Callable[..., Any]:
        return lambda input: original(input) * kept

    override_forward(injection.undo, table, build)
