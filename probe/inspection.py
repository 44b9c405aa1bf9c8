"""What would be found and measured on a model, without a training: for ``doctor``."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from probe import absence
from probe.anatomy import LayerParts, ModelParts
from probe.batch import read_output
from probe.capture import Capturing, batch_of
from probe.catalogue import columns_for
from probe.description import describe
from probe.frames import Measured
from probe.measure import kv_cache
from probe.measurement import measure_forward
from probe.overrides import BLOCK_ROLES, Overrides, find_with
from probe.schema import Anatomy
from probe.stopwatch import Stopwatch

_ROWS, _LENGTH = 2, 16
_MODEL_ROLES = (
    "token_embedding", "position_embedding", "type_embedding", "embedding_norm",
    "embedding_dropout", "head",
)  # fmt: skip
_EXTRA_ROLES = ("packed", "query_norm", "key_norm", "cross", "relative_bias")


@dataclass
class Inspection:
    """``roles``: role -> path, ``*`` for the layer, None where there is no such part.
    ``absent``: reason -> metrics that have it. ``failure``: why no forward was observed, or empty.
    """

    anatomy: Anatomy
    roles: dict[str, str | None]
    absent: dict[str, list[str]] = field(default_factory=dict)
    failure: str = ""


def inspect_model(
    model: nn.Module, batch: Mapping[str, Any] | None = None, anatomy: Overrides | None = None
) -> Inspection:
    """Find the parts of ``model`` and run it once, in training mode without gradients.

    ``batch``: arguments of its forward; without them random token ids are tried. The RNG and the
    model's mode are left as they were. Raises :class:`probe.overrides.AnatomyError`.
    """
    parts = find_with(model, anatomy)
    training = model.training
    try:
        with torch.random.fork_rng(), torch.no_grad():
            model.train()
            return _observe(parts, dict(batch) if batch is not None else _made_up(parts))
    except Exception as error:
        return Inspection(describe(parts), _roles(parts), failure=_told(error))
    finally:
        model.train(training)


def _made_up(parts: ModelParts) -> dict[str, Any]:
    """Random token ids for every argument that takes some."""
    table = parts.token_embedding
    device = next(parts.root.parameters()).device
    ids = torch.randint(table.num_embeddings if table else 2, (_ROWS, _LENGTH), device=device)
    parameters = list(inspect.signature(parts.root.forward).parameters.values())
    names = [p.name for p in parameters]
    given: dict[str, Any] = {"input_ids" if "input_ids" in names else names[0]: ids}
    if "attention_mask" in names:
        given["attention_mask"] = torch.ones_like(ids)
    if parts.coded and "labels" in names:
        given["labels"] = ids
    plain = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    for parameter in parameters[1:]:
        if parameter.kind in plain and parameter.default is inspect.Parameter.empty:
            given.setdefault(parameter.name, ids)
    return given


def _observe(parts: ModelParts, given: dict[str, Any]) -> Inspection:
    batch = batch_of(parts, (), given)
    if batch is None:
        raise ValueError("no token ids among the arguments of forward")
    errors: list[BaseException] = []
    capturing = Capturing(parts, batch, errors.append, Stopwatch())
    failure, loss, logits = "", None, None
    try:
        loss, logits = read_output(parts.root(**given))
    except Exception as error:
        # Where only the loss was left to do, for want of labels, there is enough to see.
        if not parts.layers or not capturing.passed(parts.layers[-1].block):
            raise
        failure = _told(error)
    finally:
        capturing.remove()
    if errors:
        raise errors[0]
    capture = capturing.close()
    capture.loss, capture.logits = loss, logits
    values, _ = measure_forward(parts, capture)
    measured = Measured(values).keys()
    anatomy = describe(parts)
    reasons = absence.reasons(
        parts,
        anatomy.sites,
        # The effective rank is finished elsewhere, wherever attention is seen.
        (c for c in columns_for(anatomy.sites) if c.metric != "effective_rank"),
        measured,
        absence.facts(capture, parts),
        compiled=False,
        optimized=True,
        decodes=kv_cache.possible(parts),
    )
    absent: dict[str, list[str]] = {}
    for name, text in reasons.items():
        if not name.startswith(("training/", "validation/")):
            absent.setdefault(text, []).append(name)
    return Inspection(anatomy, _roles(parts), absent, failure)


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def _roles(parts: ModelParts) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for stack in parts.stacks:
        before = f"{stack.name}." if stack.name else ""
        found[f"{before}blocks"] = _paths(parts, stack.layers, "block")
        for role in (*BLOCK_ROLES, *_EXTRA_ROLES):
            path = _paths(parts, stack.layers, role)
            if path is not None or role not in _EXTRA_ROLES:
                found[f"{before}{role}"] = path
        found[f"{before}norm_final"] = _path(parts, stack.norm_final)
    for role in _MODEL_ROLES:
        found[role] = _path(parts, getattr(parts, role))
    return found


def _path(parts: ModelParts, module: nn.Module | None) -> str | None:
    return None if module is None else parts.paths.get(module, "?")


def _paths(parts: ModelParts, layers: list[LayerParts], role: str) -> str | None:
    """One path for all layers, ``*`` for the block's number; or how many layers have one."""
    paths: dict[str, int] = {}
    for layer in layers:
        module, block = getattr(layer, role), parts.paths.get(layer.block, "")
        if module is None:
            continue
        beside = block.rpartition(".")[0]
        inner = parts.paths.get(module, "?").removeprefix(block)
        pattern = f"{beside}.*{inner}" if beside else f"*{inner}"
        paths[pattern] = paths.get(pattern, 0) + 1
    if not paths:
        return None
    if len(paths) == 1 and set(paths.values()) == {len(layers)}:
        return next(iter(paths))
    return ", ".join(f"{path} (in {count} of {len(layers)})" for path, count in paths.items())
