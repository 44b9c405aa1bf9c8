"""What the user says about the model's parts, where what is found by itself is wrong.

A mapping of role to module path; None says that the model has no such part. Roles of a block take
a path within the block, the same in all of them; with ``encoder.`` or ``decoder.`` before the role,
in those of one stack.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from probe.anatomy import (
    LayerParts,
    ModelParts,
    crossed,
    find,
    is_linear,
    is_packed,
    projections_of,
    unwrap,
)

MODEL_ROLES = (
    "blocks", "token_embedding", "position_embedding", "type_embedding", "embedding_norm",
    "embedding_dropout", "norm_final", "head",
)  # fmt: skip
BLOCK_ROLES = (
    "attention", "query", "key", "value", "fused", "attention_out", "attention_dropout", "ffn",
    "gate", "expand", "contract", "ffn_dropout", "norm_attention", "norm_ffn",
)  # fmt: skip
CROSS_ROLES = {
    "cross_attention": "attention", "cross_query": "query", "cross_key": "key",
    "cross_value": "value", "cross_attention_out": "attention_out",
    "cross_attention_dropout": "attention_dropout", "norm_cross": "norm_attention",
}  # fmt: skip
"""Roles of a block's second attention, over another stack's states, and what each is within it."""
_LINEAR = ("query", "key", "value", "fused", "attention_out", "gate", "expand", "contract", "head")
_TABLES = ("token_embedding", "position_embedding", "type_embedding")

Overrides = Mapping[str, "str | None"]


class AnatomyError(ValueError):
    """An override names a role or a path that does not exist. The message lists those that do."""


def find_with(model: nn.Module, given: Overrides | None) -> ModelParts:
    """Find the parts of ``model``, those in ``given`` as it says. Raises AnatomyError."""
    given = given or {}
    root = unwrap(model)
    blocks = given.get("blocks")
    listed = _at(root, "blocks", blocks, "the model") if blocks is not None else None
    if listed is not None and not list(listed.children()):
        raise AnatomyError(f"anatomy['blocks']: {blocks!r} holds no blocks")
    parts = find(model, listed)
    stacks = {stack.name for stack in parts.stacks if stack.name}
    fixed = []
    of_blocks = (*BLOCK_ROLES, *CROSS_ROLES)
    # An attention module brings its projections along, unless those are named as well.
    for role in sorted(given, key=lambda role: not role.endswith("attention")):
        stack, _, name = role.rpartition(".")
        if (stack and stack not in stacks) or name not in (*MODEL_ROLES, *of_blocks):
            known = ", ".join((*MODEL_ROLES, *of_blocks))
            raise AnatomyError(f"anatomy[{role!r}] is no role; the roles are: {known}")
        if name in of_blocks:
            for layer in parts.layers:
                if stack in ("", layer.stack):
                    _set_in_block(parts, layer, name, role, given[role])
        elif name != "blocks":
            _set_in_model(parts, name, stack, role, given[role])
        fixed.append(name)
    parts.fixed = frozenset(fixed)
    return parts


def _set_in_model(parts: ModelParts, name: str, stack: str, role: str, path: str | None) -> None:
    module = _at(parts.root, role, path, "the model") if path is not None else None
    _check_kind(role, name, path, module)
    if name == "norm_final":
        chosen = [s for s in parts.stacks if stack in ("", s.name)]
        if chosen:
            chosen[-1].norm_final = module
        return
    setattr(parts, name, module)


def _set_in_block(
    parts: ModelParts, layer: LayerParts, name: str, role: str, path: str | None
) -> None:
    where = f"block {parts.paths.get(layer.block, layer.index)}"
    module = _at(layer.block, role, path, where) if path is not None else None
    if name == "cross_attention":
        layer.cross = crossed(layer, module) if module is not None else None
        return
    if name in CROSS_ROLES:
        if layer.cross is None:
            raise AnatomyError(f"anatomy[{role!r}]: {where} has no attention over other states")
        layer, name = layer.cross, CROSS_ROLES[name]
    _check_kind(role, name, path, module)
    setattr(layer, name, module)
    if name == "attention":
        layer.per_head = False
        layer.fused = layer.query = layer.key = layer.value = None
        layer.packed = module if module is not None and is_packed(module) else None
        for kind, projection in projections_of(module).items() if module is not None else ():
            setattr(layer, kind, projection)
    elif name in ("norm_attention", "norm_ffn") and module is not None:
        layer.norms = [*(n for n in layer.norms if n is not module), module]
    elif name == "contract" and module is not None:
        owner = (m for m in layer.block.modules() if any(c is module for c in m.children()))
        layer.ffn = next(owner, layer.block)


def _check_kind(role: str, name: str, path: str | None, module: nn.Module | None) -> None:
    if module is None:
        return
    if name in _LINEAR and not is_linear(module):
        raise AnatomyError(
            f"anatomy[{role!r}]: {path!r} is a {type(module).__name__}, not a linear"
        )
    if name in _TABLES and not isinstance(module, nn.Embedding):
        raise AnatomyError(
            f"anatomy[{role!r}]: {path!r} is a {type(module).__name__}, not an embedding"
        )


def _at(root: nn.Module, role: str, path: str, where: str) -> nn.Module:
    try:
        return root.get_submodule(path)
    except AttributeError:
        names = ", ".join(name for name, _ in root.named_modules() if name)
        raise AnatomyError(
            f"anatomy[{role!r}]: {where} has no module {path!r}; it has: {names[:600]}"
        ) from None
