"""Low-rank adapters on linears: what they are made of, found by shape (PEFT's and torchtune's).

An adapted linear stands for one linear: what is inside it has no role of its own. Its product is
``base(x) + scaling * up(down(dropout(x)))``, one such term per active adapter; with a magnitude
(DoRA) both parts of the sum are rescaled per output feature. Source: LoRA (arXiv 2106.09685), DoRA
(arXiv 2402.09353).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn


@dataclass(frozen=True)
class Adapter:
    """One term of an adapted linear. ``down``, ``up``: linears to and from the low rank."""

    down: nn.Module
    up: nn.Module
    scaling: float
    magnitude: torch.Tensor | None = None
    """DoRA's norm of each output feature's weights, (out,)."""


def base_of(module: nn.Module) -> nn.Module:
    """The layer that adapters were put around; the module itself where there are none."""
    while isinstance(inner := getattr(module, "base_layer", None), nn.Module):
        module = inner
    return module


def is_adapted_linear(module: nn.Module) -> bool:
    """A linear with something around it or beside its weight, which stands for the whole."""
    if base_of(module) is not module:
        return is_plain_linear(base_of(module))
    weight = module._parameters.get("weight")
    return _beside(module) and isinstance(weight, torch.Tensor) and weight.dim() == 2


def is_plain_linear(module: nn.Module) -> bool:
    """``nn.Linear`` or GPT-2's transposed ``Conv1D`` (recognised by name: no transformers here)."""
    return isinstance(module, nn.Linear) or (
        type(module).__name__ == "Conv1D" and getattr(module, "weight", torch.empty(0)).dim() == 2
    )


def _beside(module: nn.Module) -> bool:
    pair = getattr(module, "lora_a", None), getattr(module, "lora_b", None)
    return all(isinstance(part, nn.Linear) for part in pair)


def adapters_of(linear: nn.Module) -> tuple[Adapter, ...] | None:
    """The terms that are added to the base product now: none where there are none, or where they
    are merged into the weights or switched off. None where they are of a kind not known here."""
    layer: Any = linear
    if base_of(linear) is linear and not _beside(linear):
        known = {"weight", "bias"}
        own = type(linear).forward is not nn.Linear.forward
        return None if own and set(linear._parameters) - known else ()
    if any(getattr(layer, name, False) for name in ("merged", "disabled", "disable_adapters")):
        return ()
    if _beside(linear):
        return (Adapter(layer.lora_a, layer.lora_b, layer.alpha / layer.rank),)
    if layer.base_layer is not base_of(linear):
        return None
    downs, ups = getattr(layer, "lora_A", None), getattr(layer, "lora_B", None)
    if not isinstance(downs, nn.ModuleDict) or not isinstance(ups, nn.ModuleDict):
        return None
    magnitudes = getattr(layer, "lora_magnitude_vector", {})
    found = []
    for name in layer.active_adapters:
        if name not in downs:
            continue
        rescaled = name in magnitudes
        if name in getattr(layer, "lora_variant", {}) and not rescaled:
            return None
        magnitude = magnitudes[name].weight if rescaled else None
        found.append(Adapter(downs[name], ups[name], float(layer.scaling[name]), magnitude))
    return tuple(found)


def added(base: torch.Tensor, weight: torch.Tensor, terms: list[Term]) -> torch.Tensor:
    """The product of an adapted linear, float32. ``base``: that of its base layer, bias included,
    float32; ``weight`` (out, in) of that layer."""
    total = base
    for adapter, given in terms:
        down, up = (m.weight.detach().float() for m in (adapter.down, adapter.up))  # type: ignore[operator]
        low = given.float() @ down.t() @ up.t()
        up_bias = getattr(adapter.up, "bias", None)
        if up_bias is not None:
            low = low + up_bias.detach().float()
        if adapter.magnitude is None:
            total = total + adapter.scaling * low
            continue
        wide = weight.float()
        length = (wide + adapter.scaling * (up @ down)).norm(dim=1)
        factor = adapter.magnitude.detach().float() / length
        total = total + (factor - 1.0) * (given.float() @ wide.t())
        total = total + factor * adapter.scaling * low
    return total


Term = tuple[Adapter, torch.Tensor]
"""An adapter and what its dropout left of the linear's input, (..., in)."""


def own_parameters(module: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Parameters of a module without its children's; of an adapted linear the base layer's, and
    those of all its adapters."""
    if is_adapted_linear(module):
        yield from module.named_parameters()
    else:
        yield from module.named_parameters(recurse=False)


def held_at_zero(module: nn.Module) -> dict[nn.Parameter, nn.Parameter]:
    """By parameter the one that, as long as it is zero, keeps it from any gradient: LoRA starts
    with ``up`` at zero, where ``down`` has none."""
    return {
        part.weight: adapter.up.weight  # type: ignore[misc]
        for adapter in adapters_of(module) or ()
        for part in (adapter.down,)
    }


def parts_within(module: nn.Module, path: str = "") -> Iterator[tuple[str, nn.Module]]:
    """``module.named_modules()`` without what is inside adapted linears, and without the original
    of a module of which a copy trains in its place."""
    return _walk(module, path, set())


def _walk(module: nn.Module, path: str, seen: set[nn.Module]) -> Iterator[tuple[str, nn.Module]]:
    if module in seen:
        return
    seen.add(module)
    yield path, module
    if is_adapted_linear(module):
        return
    replaced = isinstance(getattr(module, "modules_to_save", None), nn.ModuleDict)
    for name, child in module.named_children():
        if not (replaced and name == "original_module"):
            yield from _walk(child, f"{path}.{name}" if path else name, seen)


def adds_to_loss(model: nn.Module) -> bool:
    """AdaLoRA adds a term of its own to the loss that the model returns."""
    configs = getattr(model, "peft_config", None)
    configs = configs.values() if isinstance(configs, dict) else ()
    return any(getattr(config, "orth_reg_weight", None) for config in configs)


def below_adapters(model: nn.Module) -> nn.Module:
    """The model that PEFT was given; the model itself where it is not PEFT's."""
    below = getattr(model, "get_base_model", None)
    if not hasattr(model, "peft_config") or not callable(below):
        return model
    inner = below()
    return inner if isinstance(inner, nn.Module) else model
