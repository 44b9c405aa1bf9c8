"""Which lists of modules are the blocks of a transformer, and which stack each list makes."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from torch import nn

from probe.adapters import parts_within
from probe.recognition import attentions_of, is_linear, is_norm, projections_of

_BESIDE = {"vision_config": "vision", "audio_config": "audio"}
"""Names of stacks beside a language model, by the part of the config that states them."""


@dataclass
class Blocks:
    """Blocks in order. ``config``: the nearest one above them, where it is not the root's."""

    name: str
    modules: list[nn.Module]
    config: Any = None


def lists_of_blocks(root: nn.Module) -> list[Blocks]:
    """The largest list of like children that hold at least two linears; of a model with two
    stacks, both of them, the one without cross-attention first; of a language model with a vision
    or audio stack beside it, that one first."""
    found = _joined(root, _candidates(root))
    stacks = [blocks for blocks in found if attentions_of(blocks[0])[0]]
    crossed = [blocks for blocks in stacks if attentions_of(blocks[0])[1] is not None]
    plain = [b for b in stacks if b not in crossed and not _nested(b, crossed)]
    if len(crossed) == 1 and len(plain) == 1:
        return [Blocks("encoder", plain[0]), Blocks("decoder", crossed[0])]
    if not found:
        return []
    paths = {module: path for path, module in root.named_modules()}
    placed = [Blocks("", blocks, _config_above(root, _path(paths, blocks[0]))) for blocks in found]
    beside = _beside(root, placed)
    rest = [blocks for blocks in placed if blocks not in beside] or beside
    main = max(rest, key=lambda blocks: _size(blocks.modules))
    others = {blocks.name: blocks for blocks in beside if blocks is not main}
    main.name = ""
    return [*others.values(), main]


def _candidates(root: nn.Module) -> list[list[nn.Module]]:
    found: list[list[nn.Module]] = []
    for module in root.modules():
        if not isinstance(module, (nn.ModuleList, nn.Sequential, nn.ModuleDict)):
            continue
        children = list(module.children())
        kinds = Counter(type(child) for child in children)
        if not kinds:
            continue
        kind, count = kinds.most_common(1)[0]
        chosen = [child for child in children if type(child) is kind]
        linears = sum(is_linear(part) for _, part in parts_within(chosen[0]))
        if linears >= 2 and not is_linear(chosen[0]) and (count > 1 or not found):
            found.append(chosen)
    return found


def _joined(root: nn.Module, found: list[list[nn.Module]]) -> list[list[nn.Module]]:
    """The same, where attention and feed-forward parts that stand in two lists of one module are
    put together, with what lists of norms stand beside them: a layer is a list of its parts."""
    for parent in root.modules():
        lists = [list(c.children()) for c in parent.children() if isinstance(c, nn.ModuleList)]
        attending = [parts for parts in lists if parts in found and all(map(_only_attends, parts))]
        if len(attending) != 1:
            continue
        beside = [parts for parts in lists if len(parts) == len(attending[0])]
        feeding = [parts for parts in beside if all(map(_only_feeds, parts))]
        if len(feeding) != 1:
            continue
        norms = [parts for parts in beside if all(map(is_norm, parts))]
        together = zip(*attending, *feeding, *norms, strict=True)
        layers: list[nn.Module] = [nn.ModuleList(parts) for parts in together]
        rest = [parts for parts in found if parts not in feeding]
        return [layers if parts in attending else parts for parts in rest]
    return found


def _linears(module: nn.Module) -> int:
    return sum(is_linear(part) for _, part in parts_within(module))


def _only_attends(module: nn.Module) -> bool:
    """Attention, with no linears beside its projections but that of its output."""
    own = attentions_of(module)[0]
    return len(own) == 1 and _linears(module) <= len(projections_of(own[0])) + 1


def _only_feeds(module: nn.Module) -> bool:
    return not attentions_of(module)[0] and not is_linear(module) and _linears(module) > 1


def _path(paths: dict[nn.Module, str], block: nn.Module) -> str:
    """Of a list that was put together here, the path of its first part."""
    return paths[block] if block in paths else paths[next(block.children())]


def _size(blocks: list[nn.Module]) -> int:
    return sum(p.numel() for block in blocks for p in block.parameters())


def _nested(blocks: list[nn.Module], others: list[list[nn.Module]]) -> bool:
    inside = {m for other in others for block in other for m in block.modules()}
    return blocks[0] in inside


def _config_above(root: nn.Module, path: str) -> Any:
    """The config of the nearest module above ``path`` that has one of another kind than the
    root's; None where it is the root's."""
    own = getattr(getattr(root, "config", None), "model_type", None)
    while path and own is not None:
        path = path.rpartition(".")[0]
        config = vars(root.get_submodule(path)).get("config")
        kind = getattr(config, "model_type", None)
        if kind is not None:
            return config if kind != own else None
    return None


def _beside(root: nn.Module, placed: list[Blocks]) -> list[Blocks]:
    """Stacks of attention that the root's config states as vision or audio; named for it. Of
    several lists in one, the largest."""
    found: dict[str, Blocks] = {}
    for part, name in _BESIDE.items():
        kind = getattr(getattr(getattr(root, "config", None), part, None), "model_type", None)
        for blocks in placed:
            above = getattr(blocks.config, "model_type", None)
            if kind is None or above != kind or not attentions_of(blocks.modules[0])[0]:
                continue
            if name not in found or _size(blocks.modules) > _size(found[name].modules):
                blocks.name = name
                found[name] = blocks
    return list(found.values())
