"""Weights spread over ranks (FSDP2, tensor parallelism): each rank holds a shard of them.

Gathering them would be a collective, in which every rank waits for every other, so nothing here
does. What is the mean or the root of a mean over elements is taken over this rank's shard; what
needs the whole weight, or compares it element by element, is not measured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from probe.anatomy import ModelParts
from probe.measure.sampled import Values
from probe.nodes import kind_of
from probe.schema import Column
from probe.shards import is_flattened, is_sharded, local

REASON = "the weights are spread over ranks, and gathering them would make ranks wait"
FLAT_REASON = (
    "FSDP1 keeps the weights in flat parameters that are spread over ranks: use fully_shard"
)
DECODE_REASON = "the weights are spread over ranks: a forward of one rank waits for all"
NORM_REASON = "the gradients are spread over ranks: no rank knows their norm by itself"

MIXED_REASON = "the parameter is spread over ranks, and no part of it stands for the whole"
_TRAINED = ("grad_norm", "grad_weight_cosine", "update_ratio", "moved_between", "unmoved")
_COMPARED = ("gamma_gap", "beta_shift")
"""With the same in all layers."""
_NORM = (
    "gamma_norm", "gamma_mean", "gamma_zero", "beta_mean", "beta_spread", "formula_error",
    "gamma_gap", "beta_shift",
)  # fmt: skip
OF_WEIGHTS: Mapping[str, tuple[str, ...]] = {
    "embedding": (
        "lookup_error", "wrong_rows", "wrong_dims", "zero_rows", "type_scale", "type_gap",
    ),
    "positional": (
        "missing", "index_error", "offset", "repeated", "spacing", "rotation_error", "strength",
    ),
    "qkv": (
        "q_weight", "k_weight", "v_weight", "q_error", "k_error", "v_error", "swapped",
        "tied_heads", "zero_weights", "weight_gap",
    ),
    "score": ("scale_ratio",),
    "attention": ("reaches_output", "out_weight"),
    "norm_attention": _NORM,
    "norm_ffn": _NORM,
    "norm_final": _NORM,
    "ffn": (
        "linear_error", "in_weight", "out_weight", "in_gap", "out_gap", "weight_kurtosis",
        "constant_weights", "zero_neurons", "in_level", "out_level",
    ),
    "router": ("weight", "logits_error"),
    "output": (
        "head_error", "head_gain", "zero_rows", "head_weight", "weight_gap", "untied",
        "small_rows", "wrong_classes",
    ),
}  # fmt: skip
"""Forward metrics that read weights, by node. A test measures with and without weights."""


@contextmanager
def unread(
    root: nn.Module, which: Callable[[Any], bool] = is_sharded
) -> Iterator[frozenset[nn.Module]]:
    """Inside, weights that are shards read as NaN of their full shape, which take no memory.

    Yields the modules that own some. Arithmetic on a shard and a whole tensor would raise, or
    exchange data between ranks.
    """
    swapped: list[tuple[nn.Module, str, nn.Parameter]] = []
    try:
        for module in root.modules():
            for name, parameter in module._parameters.items():
                if parameter is not None and which(parameter):
                    swapped.append((module, name, parameter))
        for module, name, parameter in swapped:
            module._parameters[name] = _nothing(parameter)
        yield frozenset(module for module, _, _ in swapped)
    finally:
        for module, name, parameter in swapped:
            module._parameters[name] = parameter


def _nothing(parameter: nn.Parameter) -> nn.Parameter:
    device = local(parameter.detach()).device
    blank = torch.full((), float("nan"), dtype=parameter.dtype, device=device)
    return nn.Parameter(blank.expand(parameter.shape), requires_grad=parameter.requires_grad)


def measured(
    values: dict[str, Values], parts: ModelParts, unknown: frozenset[nn.Module]
) -> dict[str, Values]:
    """``values`` by site without those that would have needed the weights of ``unknown``."""
    if not unknown:
        return values
    return {
        site: {name: v for name, v in found.items() if not _needs(site, name, parts, unknown)}
        for site, found in values.items()
    }


def reasons(
    columns: Sequence[Column], measured: set[tuple[str, str]], parts: ModelParts
) -> dict[str, str]:
    """Why a column of a sharded model has no value; by ``chart/metric``, as in a header."""
    owners = {m for m in parts.root.modules() if any(map(is_sharded, m._parameters.values()))}
    if is_flattened(parts.root):
        return {"training/grad_norm": NORM_REASON} | {
            f"{column.site.partition('@')[0]}/{column.metric}": FLAT_REASON
            for column in columns
            if (column.site, column.metric) not in measured
            and not column.site.startswith(("training", "validation"))
        }
    if not owners:
        return {}
    found = {
        f"{column.site.partition('@')[0]}/{column.metric}": REASON
        for column in columns
        if (column.site, column.metric) not in measured
        and _needs(column.site, column.metric, parts, frozenset(owners))
    }
    for layer in parts.attentions:
        mixed = [m for m in (layer.fused, layer.packed) if m in owners]
        found |= {f"{layer.site('qkv')}/{name}": MIXED_REASON for name in _TRAINED if mixed}
    tables = {"embedding": parts.token_embedding, "positional": parts.position_embedding}
    for node, table in tables.items():
        found |= {f"{node}/{name}": MIXED_REASON for name in _TRAINED if table is not None}
    caches = {c.metric for c in columns if c.site.partition("@")[0].endswith("kv_cache")}
    found |= {f"kv_cache/{metric}": DECODE_REASON for metric in caches}
    return found | {"training/grad_norm": NORM_REASON, "kv_cache": DECODE_REASON}


def _needs(site: str, metric: str, parts: ModelParts, unknown: frozenset[nn.Module]) -> bool:
    node = kind_of(site.partition("@")[0].rpartition(".")[2])
    if metric not in OF_WEIGHTS.get(node, ()):
        return False
    if metric in _COMPARED or "@" in site or node == "positional":
        return True
    own = {
        "embedding": (parts.token_embedding, parts.type_embedding),
        "output": (parts.head, parts.token_embedding),
    }.get(node, tuple(norm for name, norm in parts.final_norms if name == site))
    return any(module in unknown for module in own)
