"""Gradients and updates of every component's parameters, and who is left out by the optimizer."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import groupby
from typing import NamedTuple, TypeVar

import torch
from torch import nn
from torch.linalg import vector_norm
from torch.nn.utils.rnn import pad_sequence

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
        "moved_between",
        tuple(node for node in NODES if node != "embedding"),
        "positive",
        "",
        "norm of the weights' change from the end of the last sampled step to the beginning of "
        "this one, over the larger of their norms then, on strided elements",
        "what the updates in between add up to",
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


_Key = TypeVar("_Key")

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
class _Samples:
    """Elements of some parameters, one a row and filled up with zeros, float32 (parameters, n).
    ``places``: which parameters these are; ``counts``: of how many elements."""

    places: list[int]
    counts: list[int]
    rows: torch.Tensor
    of_batch: bool = False
    """They are those that one batch uses: another batch's are others."""

    @property
    def shape(self) -> tuple[object, ...]:
        """Alike where the same elements of the same parameters can be compared."""
        return self.places, self.counts, self.rows.device


class _Level(NamedTuple):
    """Norm of a parameter's samples, 0-d, and how many they are."""

    size: torch.Tensor
    elements: int


@dataclass
class Moving:
    """Samples of the parameters before a step, and what their gradients said."""

    values: dict[str, Values] = field(default_factory=dict)
    before: list[_Samples] = field(default_factory=list)
    excused: list[torch.Tensor | None] = field(default_factory=list)
    """1 where the parameter can have no gradient yet, 0-d."""
    grad_norms: list[torch.Tensor | None] = field(default_factory=list)
    rows: torch.Tensor | None = None
    resting: set[int] = field(default_factory=set)
    """Parameters, by id, whose optimizer sat this step out: nobody expects them to move."""


@dataclass
class LastWeights:
    """Samples of the weights as the last sampled step left them; of ``parameters``, by id."""

    parameters: tuple[int, ...] = ()
    samples: list[_Samples] = field(default_factory=list)


def watched(parts: ModelParts, single: frozenset[str] = frozenset()) -> list[Watched]:
    """The parameters of every site that has some, those of a site one after the other.

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
    order: dict[str, int] = {}
    return sorted(found, key=lambda watch: order.setdefault(watch.site, len(order)))


def keep_weights(found: list[Watched], ids: torch.Tensor | None) -> Moving:
    """Before anything moves: strided samples of the weights.

    ``ids``: picked token ids, the rows of an embedding table that this step can move.
    """
    moving = Moving(rows=ids.flatten() if ids is not None else None)
    moving.before = _samples(found, moving.rows)
    moving.excused = [
        None if watch.after is None else (local(watch.after.detach()).abs().amax() == 0).float()
        for watch in found
    ]
    return moving


def read_gradients(found: list[Watched], moving: Moving, gradients: Gradients) -> None:
    """Gradient norms and activity by site, and whose gradient is zero or missing."""
    moving.grad_norms = [gradients.norm(watch.parameter) for watch in found]
    pairs = zip(found, moving.grad_norms, strict=True)
    known = [(watch, norm) for watch, norm in pairs if norm is not None]
    if known:
        device = known[0][1].device
        norms = torch.stack([norm.to(device) for _, norm in known])
        sites = [(site, list(own)) for site, own in groupby(known, lambda pair: pair[0].site)]
        sizes = [len(own) for _, own in sites]
        parted = zip(sites, norms.split(sizes), (norms > ACTIVE).float().split(sizes), strict=True)
        for (site, own), norms_here, active in parted:
            count = sum(local(watch.parameter.detach()).numel() for watch, _ in own)
            values = moving.values.setdefault(site, {})
            values["grad_norm"] = vector_norm(norms_here) / count**0.5
            values["activity"] = active.mean()
    of_sites = {
        site: [watch.parameter for watch in own]
        for site, own in groupby(found, lambda watch: watch.site)
    }
    for site, along in gradients.along_weights(of_sites).items():
        moving.values.setdefault(site, {})["grad_weight_cosine"] = along


def _samples(found: list[Watched], rows: torch.Tensor | None) -> list[_Samples]:
    """Together what can stand in one matrix."""
    alike: dict[tuple[torch.device, torch.dtype, bool], list[tuple[int, torch.Tensor]]] = {}
    for place, watch in enumerate(found):
        sample = _sample(watch, rows)
        key = sample.device, sample.dtype, _of_batch(watch, rows)
        alike.setdefault(key, []).append((place, sample.reshape(-1)))
    return [
        _Samples(
            [place for place, _ in some],
            [sample.numel() for _, sample in some],
            pad_sequence([sample for _, sample in some], batch_first=True).float(),
            of_batch,
        )
        for (_, _, of_batch), some in alike.items()
    ]


def _of_batch(watch: Watched, rows: torch.Tensor | None) -> bool:
    """Of a table only the rows that a batch uses are looked at."""
    return watch.table and rows is not None and watch.site == "embedding"


def _sample(watch: Watched, rows: torch.Tensor | None) -> torch.Tensor:
    data = local(watch.parameter.detach())
    if _of_batch(watch, rows):
        assert rows is not None
        return data[rows.clamp(0, data.shape[0] - 1)][:, :: max(1, data.shape[1] // 64)]
    return strided(data, _SAMPLE)


def read_after(
    found: list[Watched],
    moving: Moving,
    rates: dict[int, float],
    plain: set[int],
    last: LastWeights,
) -> dict[str, Values]:
    """After the step: update ratios and who did not move. ``rates``: id(parameter) -> lr;
    ``plain``: parameters, by id, that move by no more than rate times gradient. ``last`` is
    compared with and then holds the weights as they are now."""
    if found:
        samples = _samples(found, moving.rows)
        changes, levels = _moved(moving.before, samples)
        _add_ratios(found, moving, changes, levels)
        _add_unmoved(found, moving, changes, levels, rates, plain)
        _add_between(found, moving, last)
        last.parameters = tuple(id(watch.parameter) for watch in found)
        last.samples = _comparable(samples)
    return moving.values


def _moved(
    earlier: list[_Samples], later: list[_Samples]
) -> tuple[list[torch.Tensor], list[_Level]]:
    """Of each parameter the norm of its change and its level before, on its samples, 0-d."""
    changes: dict[int, torch.Tensor] = {}
    levels: dict[int, _Level] = {}
    for before, after in zip(earlier, later, strict=True):
        own = vector_norm(after.rows - before.rows, dim=1).unbind()
        sizes = vector_norm(before.rows, dim=1).unbind()
        changes.update(zip(before.places, own, strict=True))
        pairs = map(_Level, sizes, before.counts)
        levels.update(zip(before.places, pairs, strict=True))
    every = range(len(changes))
    return [changes[at] for at in every], [levels[at] for at in every]


def _add_between(found: list[Watched], moving: Moving, last: LastWeights) -> None:
    """Add how far each site's weights moved since the last sampled step, where there was one."""
    same = last.parameters == tuple(id(watch.parameter) for watch in found)
    samples = _comparable(moving.before)
    # Moved to another device, or spread otherwise, the same parameters are other samples.
    if not same or [s.shape for s in samples] != [s.shape for s in last.samples]:
        return
    changes: dict[str, list[torch.Tensor]] = {}
    sizes: dict[str, list[torch.Tensor]] = {}
    for before, now in zip(last.samples, samples, strict=True):
        own = vector_norm(now.rows - before.rows, dim=1).unbind()
        # Of weights set to zero in between, nothing is left to compare with.
        larger = torch.maximum(vector_norm(now.rows, dim=1), vector_norm(before.rows, dim=1))
        for place, change, size in zip(now.places, own, larger.unbind(), strict=True):
            changes.setdefault(found[place].site, []).append(change)
            sizes.setdefault(found[place].site, []).append(size)
    for site, ratio in _ratios(changes, sizes).items():
        moving.values.setdefault(site, {})["moved_between"] = ratio


def _comparable(samples: list[_Samples]) -> list[_Samples]:
    """Those that are the same elements at every sample."""
    return [some for some in samples if not some.of_batch]


def _add_ratios(
    found: list[Watched], moving: Moving, changes: list[torch.Tensor], levels: list[_Level]
) -> None:
    """Add update ratios, of the sites and of their parts."""
    moved: dict[tuple[str, str], list[torch.Tensor]] = {}
    whole: dict[tuple[str, str], list[torch.Tensor]] = {}
    for at, watch in enumerate(found):
        names = ["update_ratio"]
        if watch.part and watch.parameter.dim() >= 2:
            names.append(f"{watch.part}_update")
        for name in names:
            moved.setdefault((watch.site, name), []).append(changes[at])
            whole.setdefault((watch.site, name), []).append(levels[at].size)
    for (site, name), ratio in _ratios(moved, whole).items():
        moving.values.setdefault(site, {})[name] = ratio


def _ratios(
    moved: dict[_Key, list[torch.Tensor]], whole: dict[_Key, list[torch.Tensor]]
) -> dict[_Key, torch.Tensor]:
    """Under every key the norm of what moved over that of the whole, from the norms of the parts,
    0-d. Keys of as many parts are reckoned together."""
    alike: dict[tuple[int, torch.device], list[_Key]] = {}
    for key, norms in moved.items():
        alike.setdefault((len(norms), norms[0].device), []).append(key)
    found: dict[_Key, torch.Tensor] = {}
    for (count, device), keys in alike.items():
        top, bottom = (
            vector_norm(_stacked([norm for key in keys for norm in of[key]], device, count), dim=1)
            for of in (moved, whole)
        )
        found.update(zip(keys, (top / bottom.clamp_min(TINY)).unbind(), strict=True))
    return found


def _stacked(norms: list[torch.Tensor], device: torch.device, count: int) -> torch.Tensor:
    """(keys, count) of the norms of every key's ``count`` parts."""
    return torch.stack([norm.to(device) for norm in norms]).view(-1, count)


def _add_unmoved(
    found: list[Watched],
    moving: Moving,
    changes: list[torch.Tensor],
    levels: list[_Level],
    rates: dict[int, float],
    plain: set[int],
) -> None:
    """Add which share of each site's parameters did not move, or got no gradient, though due."""
    device = changes[0].device
    missing = torch.ones((), device=device)
    norms = [missing * 0 if n is None else n.to(device) for n in moving.grad_norms]
    zeros = (torch.stack(norms) == 0).float()
    rests = (torch.stack([change.to(device) for change in changes]) == 0).float()
    either = torch.maximum(zeros, rests).unbind()
    still: dict[str, list[torch.Tensor]] = {}
    of_all = zip(found, moving.grad_norms, moving.excused, zeros.unbind(), strict=True)
    for at, (watch, norm, excused, zero) in enumerate(of_all):
        parameter = watch.parameter
        if watch.silent or not parameter.requires_grad or id(parameter) in moving.resting:
            continue
        if norm is None:
            if not watch.spare:
                still.setdefault(watch.site, []).append(missing)
            continue
        rate, stuck = rates.get(id(parameter), 0.0), either[at]
        if rate <= 0 or parameter.dtype != torch.float32:
            stuck = zero
        elif id(parameter) in plain and levels[at].elements:
            steepness = norm / local(parameter.detach()).numel() ** 0.5
            level = levels[at].size / levels[at].elements ** 0.5
            told = rate * steepness > _RESOLVED * level
            stuck = torch.maximum(zero, (changes[at] == 0).float() * told)
        if excused is not None:
            stuck = stuck * (1.0 - excused)
        still.setdefault(watch.site, []).append(stuck)
    for site, flags in still.items():
        moving.values.setdefault(site, {})["unmoved"] = torch.stack(flags).mean()
