"""The header of a run: what was found in the model, what is measured, what is not and why."""

from __future__ import annotations

import sys

import torch

from probe.anatomy import ModelParts
from probe.catalogue import METRICS, columns_for
from probe.description import describe
from probe.measure import kv_cache
from probe.registry import RunEntry
from probe.schema import SCHEMA_VERSION, Header


def make_header(
    entry: RunEntry, parts: ModelParts, settings: dict[str, str], *, compiled: bool, optimized: bool
) -> Header:
    """The header, its ``seq`` still to be set. ``optimized``: an optimizer was given."""
    anatomy = describe(parts)
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
        columns=columns_for(anatomy.sites),
        absent=_absent(parts, compiled, optimized),
        settings=settings | own,
        versions=_versions(),
    )


def _absent(parts: ModelParts, compiled: bool, optimized: bool) -> dict[str, str]:
    reasons: dict[str, str] = {}
    if compiled:
        reasons["forward"] = "the model is compiled; activations are not read from it yet"
    if not kv_cache.possible(parts):
        reasons["kv_cache"] = "not a decoder that may cache while training"
    if not optimized:
        reasons["unmoved"] = "no optimizer was given"
    if parts.intent.activation is None:
        reasons["activation_error"] = "no config states an activation"
    if parts.intent.norm_eps is None:
        reasons["eps_ratio"] = "no config states an epsilon; norms are compared with each other"
    return reasons


def _versions() -> dict[str, str]:
    found = {"python": sys.version.split()[0], "torch": str(torch.__version__)}
    transformers = sys.modules.get("transformers")
    if transformers is not None:
        found["transformers"] = str(transformers.__version__)
    return found
