"""Further ways of embedding faults: rows from the mean, clamped ids, a tiled narrow table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from diagnoser.faults.embedding import drawn_rows
from diagnoser.faults.fault import Injection, Table
from diagnoser.faults.override import edit_parameter, override_forward

EMBEDDING_WAYS = Table("embedding", beyond=True)

_SHARES = (0.1, 0.3, 0.5)


@EMBEDDING_WAYS.operator(
    "EMR",
    "input_initialization",
    "start a share of token rows at the table's mean",
    layered=False,
    parameter="percentage",
    values=_SHARES,
    moment="start",
    happens="resize_token_embeddings filled with the mean of all rows and no noise: the new "
    "tokens' vectors are nearly zero in a fresh table, and all the same",
)
def fill_with_mean(injection: Injection) -> None:
    """The rows of randomly drawn tokens start equal, at the mean of the table."""
    table = injection.anatomy.embedding
    rows = drawn_rows(injection, injection.number).to(table.weight.device)

    def change(data: torch.Tensor) -> None:
        data[rows] = data.mean(dim=0)

    edit_parameter(injection.undo, table.weight, change)  # type: ignore[arg-type]


@EMBEDDING_WAYS.operator(
    "ECL",
    "input_type",
    "clamp the ids above a part of the vocabulary",
    layered=False,
    parameter="share",
    values=_SHARES,
    happens="`ids.clamp(max=size - 1)` against an index error, with a tokenizer larger than the "
    "size it was written for",
)
def clamp_ids(injection: Injection) -> None:
    """The last ``share`` of the vocabulary shares one row, that of the last id below."""
    table = injection.anatomy.embedding
    count = table.num_embeddings
    last = max(0, count - 1 - max(1, round(injection.number * count)))

    def build(original: Callable[..., Any]) -> Callable[..., Any]:
        return lambda input: original(input.clamp(max=last))

    override_forward(injection.undo, table, build)


@EMBEDDING_WAYS.operator(
    "EDP",
    "input_dimension",
    "fill a share of the width with copies of other dimensions",
    layered=False,
    parameter="fraction",
    values=_SHARES,
    happens="a narrower pretrained table tiled to the model's width: shapes fit, the added "
    "dimensions carry nothing new",
)
def repeat_dimensions(injection: Injection) -> None:
    """The last dimensions of every token's embedding repeat its first ones."""
    table = injection.anatomy.embedding
    width = table.embedding_dim
    size = min(width // 2, max(1, round(injection.number * width)))
    source = torch.arange(width, device=table.weight.device)
    source[width - size :] = torch.arange(size, device=table.weight.device)

    def build(original: Callable[..., Any]) -> Callable[..., Any]:
        return lambda input: original(input)[..., source]

    override_forward(injection.undo, table, build)
