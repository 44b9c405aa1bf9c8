"""Gradients and updates of every component's parameters, and who is left out by the optimizer."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import nn

from probe.adapters import held_at_zero, own_parameters
from probe.anatomy import LayerParts, ModelParts
from probe.gradients import Gradients
from probe.measure.numbers import TINY, strided
from probe.measure.sampled import Values
from probe.schema import Metric
from probe.shards import is_flattened, is_sharded, local

NODES = (
    "embedding", "positional", "qkv", "attention", "norm_attention", "norm_ffn", "norm_final", "ffn",
    "output", "router",
)  # fmt: skip

METRICS = (
    Metric(
        "grad_norm",
        NODES,
        "positive",
        "",
        "norm of the gradient over the root of the number of elements",
        "like its peers",
        source="DEFault++",
    ),
    Metric(
        "activity",
        NODES,
        "share",
        "share",
        "parameters whose gradient's norm is over 1e-6",
        "steady",
        source="DEFault++",
    ),
    Metric(
        "grad_weight_cosine",
        NODES,
        "statistic",
        "cosine",
        "cosine of the gradient and the weights, on strided elements: a penalty on the weights in "
        "the loss pulls it towards 1",
        "around 0",
    ),
    Metric(
        "update_ratio",
        NODES,
        "positive",
        "",
        "norm of the step's change over the norm of the weights, on strided elements",
        "1e-4 to 1e-2",
        source="DEFault++",
    ),
    Metric(
        "unmoved",
        NODES,
        "share",
        "share",
        "parameters reached in forward that got no gradient or did not move though they should",
        "0",
        contract=True,
    ),
    Metric(
        "q_update",
        ("qkv",),
        "positive",
        "",
        "update ratio of the query weights",
        "like k's and v's",
    ),
    Metric(
        "k_update", ("qkv",), "positive", "", "update ratio of the key weights", "like q's and v's"
    ),
    Metric(
        "v_update",
        ("qkv",),
        "positive",
        "",
        "update ratio of the value weights",
        "like q's and k's",
    ),
)


_SAMPLE = 1024

_RESOLVED = 1e-6
"""Change against the weights' level that float32 shows for sure."""

ACTIVE = 1e-6
"""Gradient norm above which a parameter counts as active (DEFault++)."""


@dataclass
class Watched:
    """A parameter at a site. ``part``: q, k, v or empty; ``silent``: its gradient may rightly be
    zero, since softmax cancels it, or would in this rank's part."""

    site: str
    parameter: nn.Parameter
    part: str = ""
    silent: bool = False
    table: bool = False
    spare: bool = False
    """May be left unused: of a stack beside the language model, which reads what it wants of it."""
    after: nn.Parameter | None = None
    """While this one is zero, the parameter has no gradient."""


@dataclass
class Moving:
    """Samples of the parameters before a step, and what their gradients said."""

    values: dict[str, Values] = field(default_factory=dict)
    before: list[torch.Tensor] = field(default_factory=list)
    excused: list[torch.Tensor | None] = field(default_factory=list)
    """1 where the parameter can have no gradient yet, 0-d."""
    grad_zero: list[torch.Tensor | None] = field(default_factory=list)
    grad_size: list[torch.Tensor | None] = field(default_factory=list)
    """Root mean square of each gradient, 0-d."""
    rows: torch.Tensor | None = None
    resting: set[int] = field(default_factory=set)
    """Parameters, by id, whose optimizer sat this step out: nobody expects them to move."""


def watched(parts: ModelParts, single: frozenset[str] = frozenset()) -> list[Watched]:
    """The parameters of every site that has some.

    ``single``: names of the stacks whose rows hold one token, which attends to itself whatever its
    query and key are.
    """
    found: list[Watched] = []
    if is_flattened(parts.root):
        return found

    def add(
        site: str,
        module: nn.Module | None,
        part: str = "",
        key: bool = False,
        mixed: bool = False,
        alone: bool = False,
    ) -> None:
        if module is None:
            return
        table, after = isinstance(module, nn.Embedding), held_at_zero(module)
        spare = site.partition(".")[0] in aside
        for name, parameter in own_parameters(module):
            silent = alone or (key and name.endswith("bias"))
            if is_sharded(parameter):
                if table or mixed or not local(parameter.detach()).numel():
                    continue  # its part on this rank does not stand for the whole
                silent = silent or name.endswith("bias")
            first = after.get(parameter)
            found.append(Watched(site, parameter, part, silent, table, spare, first))

    def of_attention(layer: LayerParts) -> None:
        site, alone = layer.site, layer.stack in single and not layer.crossing
        add(site("qkv"), layer.fused, mixed=True)
        add(site("qkv"), layer.packed, mixed=True)
        add(site("qkv"), layer.query, "q", alone=alone)
        add(site("qkv"), layer.key, "k", key=True, alone=alone)
        add(site("qkv"), layer.value, "v")
        add(site("qkv"), layer.query_norm, alone=alone)
        add(site("qkv"), layer.key_norm, alone=alone)
        add(site("attention"), layer.attention_out)
        add(site("norm_attention"), layer.norm_attention)

    aside = {stack.name for stack in parts.stacks if stack.intent is not None}
    add("embedding", parts.token_embedding)
    add("positional", parts.position_embedding)
    for layer in parts.layers:
        site = layer.site
        add("positional", layer.relative_bias, alone=layer.stack in single)
        for part in layer.attentions:
            of_attention(part)
        for module in (layer.gate, layer.expand, layer.contract):
            add(site("ffn"), module)
        add(site("router"), layer.router)
        add(site("norm_ffn"), layer.norm_ffn)
        for module in layer.experts.modules() if layer.experts is not None else ():
            # Each expert by itself may go without tokens; stacked ones share a parameter.
            if any(p.dim() == 3 for p in module.parameters(recurse=False)):
                add(site("ffn"), module)
        for module in layer.strays:
            inside = layer.attention is not None and module in set(layer.attention.modules())
            add(site("qkv" if inside else "ffn"), module)
    for final, norm in parts.final_norms:
        add(final, norm)
    add("output", parts.head)
    return found


def keep_weights(found: list[Watched], ids: torch.Tensor | None) -> Moving:
    """Before anything moves: strided samples of the weights.

    ``ids``: picked token ids, the rows of an embedding table that this step can move.
    """
    moving = Moving(rows=ids.flatten() if ids is not None else None)
    moving.before = [_sample(watch, moving.rows).clone() for watch in found]
    moving.excused = [
        None if watch.after is None else (local(watch.after.detach()).abs().amax() == 0).float()
        for watch in found
    ]
    return moving


def read_gradients(found: list[Watched], moving: Moving, gradients: Gradients) -> None:
    """Gradient norms and activity by site, and whose gradient is zero or missing."""
    sums: dict[str, list[tuple[torch.Tensor, int]]] = {}
    of_sites: dict[str, list[nn.Parameter]] = {}
    for watch in found:
        of_sites.setdefault(watch.site, []).append(watch.parameter)
        norm = gradients.norm(watch.parameter)
        if norm is None:
            moving.grad_zero.append(None)
            moving.grad_size.append(None)
        else:
            count = local(watch.parameter.detach()).numel()
            sums.setdefault(watch.site, []).append((norm, count))
            moving.grad_zero.append((norm == 0).float())
            moving.grad_size.append(norm / count**0.5)
    for site, pairs in sums.items():
        count = sum(n for _, n in pairs)
        norms = torch.stack([norm for norm, _ in pairs])
        values = moving.values.setdefault(site, {})
        values["grad_norm"] = norms.norm() / count**0.5
        values["activity"] = (norms > ACTIVE).float().mean()
    for site, own in of_sites.items():
        along = gradients.along_weights(own)
        if along is not None:
            moving.values.setdefault(site, {})["grad_weight_cosine"] = along


def _sample(watch: Watched, rows: torch.Tensor | None) -> torch.Tensor:
    data = local(watch.parameter.detach())
    if watch.table and rows is not None and watch.site == "embedding":
        return data[rows.clamp(0, data.shape[0] - 1)][:, :: max(1, data.shape[1] // 64)]
    return strided(data, _SAMPLE)


def read_after(
    found: list[Watched], moving: Moving, rates: dict[int, float], plain: set[int]
) -> dict[str, Values]:
    """After the step: update ratios and who did not move. ``rates``: id(parameter) -> lr;
    ``plain``: parameters, by id, that move by no more than rate times gradient."""
    change: dict[tuple[str, str], list[torch.Tensor]] = {}
    size: dict[tuple[str, str], list[torch.Tensor]] = {}
    still: dict[str, list[torch.Tensor]] = {}
    told = (moving.before, moving.grad_zero, moving.grad_size, moving.excused)
    for watch, before, zero, steepness, excused in zip(found, *told, strict=True):
        after = _sample(watch, moving.rows)
        delta = (after.float() - before.float()).norm()
        for part in {"", watch.part}:
            if part and watch.parameter.dim() < 2:
                continue
            change.setdefault((watch.site, part), []).append(delta)
            size.setdefault((watch.site, part), []).append(before.float().norm())
        parameter = watch.parameter
        if watch.silent or not parameter.requires_grad or id(parameter) in moving.resting:
            continue
        if zero is None and watch.spare:
            continue
        if zero is None:
            stuck = torch.ones_like(delta)
        elif (rate := rates.get(id(parameter), 0.0)) > 0 and parameter.dtype == torch.float32:
            still_there = delta == 0
            if id(parameter) in plain and steepness is not None and len(before):
                level = before.float().square().mean().sqrt()
                still_there &= rate * steepness > _RESOLVED * level
            stuck = torch.maximum(zero, still_there.float())
        else:
            stuck = zero
        if excused is not None and zero is not None:
            stuck = stuck * (1.0 - excused)
        still.setdefault(watch.site, []).append(stuck)
    values = moving.values
    for (site, part), deltas in change.items():
        ratio = torch.stack(deltas).norm() / torch.stack(size[site, part]).norm().clamp_min(TINY)
        values.setdefault(site, {})[f"{part}_update" if part else "update_ratio"] = ratio
    for site, flags in still.items():
        values.setdefault(site, {})["unmoved"] = torch.stack(flags).mean()
    return values
