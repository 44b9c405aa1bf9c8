"""What ``doctor --model`` prints: the parts that the probe finds in a model, and what it misses."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from monitor.checkup import Finding
from monitor.usage import UsageError

if TYPE_CHECKING:
    from torch import nn

    from probe.inspection import Inspection

_NEEDED = ("blocks", "attention", "token_embedding")


def load_model(spec: str) -> tuple[nn.Module, Mapping[str, Any] | None]:
    """Call the factory that ``MODULE:FACTORY`` names, found as a script here would find it.

    It returns the model, or the model and a dict of its forward's arguments. Raises UsageError.
    """
    module_name, _, name = spec.partition(":")
    if not module_name or not name:
        raise UsageError(f"--model {spec}: write MODULE:FACTORY, e.g. train:build_model")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        made = getattr(importlib.import_module(module_name), name)
    except (ImportError, AttributeError) as error:
        raise UsageError(f"--model {spec}: {error}") from error
    from torch import nn

    if callable(made) and not isinstance(made, nn.Module):
        try:
            made = made()
        except Exception as error:
            raise UsageError(f"--model {spec}: {type(error).__name__}: {error}") from error
    model, batch = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    if not isinstance(model, nn.Module):
        raise UsageError(f"--model {spec}: gave a {type(model).__name__}, not a torch module")
    if batch is not None and not isinstance(batch, Mapping):
        raise UsageError(f"--model {spec}: the batch is a {type(batch).__name__}, not a dict")
    return model, batch


def model_findings(spec: str) -> Iterator[Finding]:
    """All there is to say about the model, the parts first."""
    from probe.inspection import inspect_model

    model, batch = load_model(spec)
    inspection = inspect_model(model, batch)
    yield from _anatomy(inspection)
    for name, text in inspection.facts.items():
        yield Finding("ok", "fact", f"{name}: {text}")
    yield from _parts(inspection)
    if inspection.failure:
        yield Finding(
            "note",
            "forward",
            f"did not run to its end on random token ids: {inspection.failure}; let the factory "
            "return (model, batch) with the arguments of forward",
        )
    yield from _offers(inspection)
    for text, names in inspection.absent.items():
        yield Finding("note", "unmeasured", f"{', '.join(names)}: {text}")


def _anatomy(inspection: Inspection) -> Iterator[Finding]:
    anatomy = inspection.anatomy
    yield Finding(
        "ok",
        "model",
        f"{anatomy.model}, {anatomy.kind}, {anatomy.parameters:,} parameters, "
        f"{anatomy.layers} layers, width {anatomy.width or 'unknown'}",
    )
    yield Finding(
        "ok" if anatomy.heads else "note",
        "heads",
        f"{anatomy.heads or 'unknown'}, for keys and values {anatomy.kv_heads or 'unknown'}, "
        f"of dimension {anatomy.head_dim or 'unknown'}",
    )
    order = anatomy.norm_order
    yield Finding("note" if order == "unknown" else "ok", "norms", f"order: {order}")
    places = anatomy.positions
    yield Finding("note" if places == "unknown" else "ok", "positions", places)


def _offers(inspection: Inspection) -> Iterator[Finding]:
    """What can be measured, in training and without."""
    if inspection.measured:
        yield Finding(
            "ok",
            "measured",
            f"{len(inspection.measured)} metrics of a forward, {len(inspection.contracts)} of them "
            "contracts; in training also gradients, updates and the optimizer's groups",
        )
    if inspection.compiled:
        yield Finding(
            "note",
            "compiled",
            "the model runs as a graph: loss, gradients and updates are measured, activations not",
        )
    if inspection.decodes:
        yield Finding("ok", "generation", "cached decoding is compared with fresh forwards")
    elif inspection.anatomy.kind != "encoder":
        yield Finding("note", "generation", "cached decoding is not compared on this model")
    if inspection.fused:
        yield Finding(
            "note",
            "evaluation",
            "torch runs these layers in one fused call, which is not looked into; training is",
        )


def _parts(inspection: Inspection) -> Iterator[Finding]:
    width = max(len(role) for role in inspection.roles)
    for role, path in inspection.roles.items():
        if path is not None:
            yield Finding("ok", "part", f"{role:<{width}}  {path or '(the model itself)'}")
    missing = [role for role, path in inspection.roles.items() if path is None]
    for role in (role for role in inspection.without if role in missing):
        yield Finding("note", "part", f"no {role}: {inspection.without[role]}")
        missing.remove(role)
    needed = [role for role in _NEEDED if role in missing]
    if "blocks" not in {role.rpartition(".")[2] for role in inspection.roles}:
        needed.insert(0, "blocks")
    if needed:
        told = "name them: probe.attach(..., anatomy={'ROLE': 'module.path'})"
        yield Finding("fail", "part", f"not found: {', '.join(needed)}; {told}")
    rest = [role for role in missing if role not in needed]
    if rest:
        yield Finding("note", "part", f"this model has no, or none was found: {', '.join(rest)}")
