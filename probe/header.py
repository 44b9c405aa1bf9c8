"""The header of a run: what was found in the model, what is measured, what is not and why."""

from __future__ import annotations

import sys
from collections.abc import Mapping

import msgspec
import torch

from probe import absence, facts, sharded
from probe.anatomy import ModelParts
from probe.catalogue import METRICS, columns_for, head_columns
from probe.description import describe
from probe.heads import is_head
from probe.measure import kv_cache
from probe.registry import RunEntry
from probe.schema import SCHEMA_VERSION, Header

_TOO_MANY_HEADS = "there are too many heads to tell each by itself"
_UNSEEN_HEADS = "no call of attention was seen"


def make_header(
    entry: RunEntry,
    parts: ModelParts,
    settings: dict[str, str],
    optimizers: list[torch.optim.Optimizer],
    seen: absence.Seen,
    *,
    compiled: bool,
) -> Header:
    """The header, its ``seq`` still to be set, without the reasons of single metrics."""
    anatomy = describe(parts)
    heads = head_columns(anatomy.sites, seen.heads)
    first = next(parts.root.parameters())
    own = {"dtype": str(first.dtype).removeprefix("torch."), "device": first.device.type}
    return Header(
        seq=0,
        schema=SCHEMA_VERSION,
        run=entry.run,
        name=entry.name,
        created=entry.created,
        host=entry.host,
        pid=entry.pid,
        rank=entry.rank,
        world_size=entry.world_size,
        anatomy=anatomy,
        metrics=METRICS,
        columns=columns_for(anatomy.sites) + heads,
        absent=_of_nodes(parts, compiled) | _of_heads(seen, bool(heads)),
        facts=facts.read_all(facts.Subject(parts, optimizers, seen)),
        settings=settings | own,
        versions=_versions(),
    )


def with_reasons(
    header: Header,
    parts: ModelParts,
    seen: absence.Seen,
    measured: Mapping[absence.Key, float],
    *,
    compiled: bool,
    optimized: bool,
    trained: bool = True,
) -> Header:
    """The header with what the values of the first sample tell: a reason for every column without
    one, and how the initial weights compare.

    ``trained``: whether gradients are to be expected.
    """
    found = absence.reasons(
        parts,
        header.anatomy.sites,
        (column for column in header.columns if not is_head(column.site)),
        set(measured),
        seen,
        compiled=compiled,
        optimized=optimized,
        decodes=kv_cache.possible(parts),
    )
    if not trained:
        found |= absence.without_training(header.columns)
    found |= sharded.reasons(header.columns, set(measured), parts)
    weights = facts.initial_weights(measured)
    return msgspec.structs.replace(
        header,
        absent=header.absent | found,
        facts=header.facts | ({facts.INITIAL[0]: weights} if weights else {}),
    )


def _of_heads(seen: absence.Seen, told: bool) -> dict[str, str]:
    if told:
        return {}
    return {"heads": _TOO_MANY_HEADS if seen.heads else _UNSEEN_HEADS}


def _of_nodes(parts: ModelParts, compiled: bool) -> dict[str, str]:
    reasons: dict[str, str] = {}
    if compiled:
        reasons["forward"] = "the model is compiled; activations are not read from it yet"
    if not kv_cache.possible(parts):
        reasons["kv_cache"] = "not a decoder that may cache while training"
    return reasons


def _versions() -> dict[str, str]:
    found = {"python": sys.version.split()[0], "torch": str(torch.__version__)}
    transformers = sys.modules.get("transformers")
    if transformers is not None:
        found["transformers"] = str(transformers.__version__)
    return found
