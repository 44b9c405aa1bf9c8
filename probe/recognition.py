"""What kind of module this is: linears, norms, projections to q, k and v, wrappers.

Known by what a module is made of and how its children are named, never by family.
"""

from __future__ import annotations

import re

import torch
from torch import nn

from probe.adapters import (
    base_of,
    below_adapters,
    is_adapted_linear,
    is_plain_linear,
    parts_within,
)

_QUERY = re.compile(r"^(q|query|q_proj|q_lin|wq|to_q|query_proj|c_q|q_linear|q_attn)$")
_KEY = re.compile(r"^(k|key|k_proj|k_lin|wk|to_k|key_proj|c_k|k_linear)$")
_VALUE = re.compile(r"^(v|value|v_proj|v_lin|wv|to_v|value_proj|c_v|v_linear)$")
_FUSED = re.compile(
    r"^(c_attn|qkv|qkv_proj|wqkv|in_proj|query_key_value|c_qkv|to_qkv|attn_qkv)$", re.I
)

_CROSS = re.compile(r"cross|enc\w*_?att|enc_?dec|src_att|memory|context", re.I)


def is_linear(module: nn.Module) -> bool:
    """A linear layer, with or without adapters."""
    return is_plain_linear(module) or is_adapted_linear(module)


def weight_of(linear: nn.Module) -> torch.Tensor:
    """Weight as (out features, in features), whatever the layout; a view, never a copy. Of an
    adapted linear that of its base layer."""
    base = base_of(linear)
    weight: torch.Tensor = base.weight  # type: ignore[assignment]
    return weight.t() if type(base).__name__ == "Conv1D" else weight


def is_norm(module: nn.Module) -> bool:
    """LayerNorm and RMSNorm in all their spellings: "norm" in the name, a 1-d weight."""
    return "norm" in type(module).__name__.lower() and gamma_of(module) is not None


def gamma_of(norm: nn.Module) -> nn.Parameter | None:
    """The weight of a norm, one number per feature."""
    for name in ("weight", "scale", "gamma"):
        weight = getattr(norm, name, None)
        if isinstance(weight, nn.Parameter) and weight.dim() == 1:
            return weight
    return None


def is_state_space(module: nn.Module) -> bool:
    """A mixer of tokens that is no attention: it convolves what its projection gives."""
    children = list(module.children())
    return any(isinstance(c, nn.Conv1d) for c in children) and any(map(is_linear, children))


def experts_of(block: nn.Module) -> nn.Module | None:
    """The part of a block that chooses among several feed-forward parts: it holds a list of like
    ones, or a module with their weights stacked in three dimensions."""
    for _, owner in parts_within(block):
        for child in owner.children():
            stacked = [p for p in child.parameters(recurse=False) if p.dim() == 3]
            several = isinstance(child, nn.ModuleList) and len(child) > 1 and _alike(child)
            if owner is not block and (len(stacked) > 1 or several):
                return owner
    return None


def _alike(modules: nn.ModuleList) -> bool:
    """Like modules that each hold several linears and no attention."""
    first = modules[0]
    linears = sum(is_linear(part) for _, part in parts_within(first))
    same = all(type(module) is type(first) for module in modules)
    return same and linears > 1 and not attentions_of(first)[0]


def unwrap(model: nn.Module) -> nn.Module:
    """The module a person wrote, below the wrappers of DDP, torch.compile and PEFT."""
    while True:
        inner = getattr(model, "_orig_mod", None)
        if inner is None and type(model).__name__ in ("DistributedDataParallel", "DataParallel"):
            inner = model.module
        if inner is None and (below := below_adapters(model)) is not model:
            inner = below
        if not isinstance(inner, nn.Module):
            return model
        model = inner


def is_packed(module: nn.Module) -> bool:
    """q, k and v are rows of one parameter, as in ``nn.MultiheadAttention``."""
    weight = getattr(module, "in_proj_weight", None)
    return (
        isinstance(weight, torch.Tensor)
        and weight.dim() == 2
        and weight.shape[0] == 3 * weight.shape[1]
    )


def projections_of(module: nn.Module) -> dict[str, nn.Module]:
    """The linears of ``module`` that are named for q, k, v, or all three. Empty where none are."""
    if is_state_space(module):
        return {}
    names = {name: child for name, child in module.named_children() if is_linear(child)}
    kinds = (("fused", _FUSED), ("query", _QUERY), ("key", _KEY), ("value", _VALUE))
    found = {
        kind: next(child for name, child in names.items() if pattern.match(name))
        for kind, pattern in kinds
        if any(pattern.match(name) for name in names)
    }
    if "fused" in found:
        return {"fused": found["fused"]}
    return found if len(found) == 3 else {}


def query_beside(module: nn.Module) -> nn.Module | None:
    """The query's projection of a cross-attention whose keys and values come of one linear."""
    children = module.named_children()
    return next((c for n, c in children if is_linear(c) and _QUERY.match(n)), None)


def attentions_of(block: nn.Module) -> tuple[list[nn.Module], nn.Module | None]:
    """(modules of the block's own attention, that over other states). Several modules where every
    head is one of its own. Of two the second is taken for the latter, unless their names say that
    it is the first."""
    named = [(n, m) for n, m in parts_within(block) if is_packed(m) or projections_of(m)]
    found = [module for _, module in named]
    if len(found) < 2:
        return found, None
    lists = [list(m) for m in block.modules() if isinstance(m, nn.ModuleList)]
    heads = next((members for members in lists if found[0] in members), [])
    alike = [m for m in heads if type(m) is type(found[0])]
    if len(alike) > 1:
        return alike, None
    crossing = [bool(_CROSS.search(name)) for name, _ in named[:2]]
    return (found[1:2], found[0]) if crossing == [True, False] else (found[:1], found[1])
