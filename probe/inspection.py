"""What would be found and measured on a model, without a training: for ``doctor``."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from probe import absence, facts
from probe.anatomy import LayerParts, ModelParts
from probe.batch import read_output
from probe.capture import Capturing, batch_of
from probe.catalogue import METRICS, columns_for
from probe.compiled import is_compiled
from probe.description import describe
from probe.frames import Measured
from probe.measure import kv_cache
from probe.measurement import measure_forward
from probe.nodes import kind_of
from probe.overrides import BLOCK_ROLES, CROSS_ROLES, Overrides, find_with
from probe.recognition import is_state_space
from probe.reruns import foreseen
from probe.schema import Anatomy
from probe.stopwatch import Stopwatch

_ROWS, _LENGTH = 2, 16
_MODEL_ROLES = (
    "token_embedding", "position_embedding", "type_embedding", "embedding_norm",
    "embedding_dropout", "head",
)  # fmt: skip
_EXTRA_ROLES = ("packed", "query_norm", "key_norm", "relative_bias", "router", *CROSS_ROLES)


@dataclass
class Inspection:
    """``roles``: role -> path, ``*`` for the layer, None where there is no such part.
    ``absent``: reason -> metrics that have it. ``failure``: why no forward was observed, or empty.
    ``measured``: the metrics of a forward that have a value, ``node/metric``; ``contracts``: those
    of them whose healthy value is known exactly. ``compiled``: the model runs as a graph;
    ``decodes``: its cached decoding can be compared; ``fused``: torch runs its layers in one call
    in evaluation.
    """

    anatomy: Anatomy
    roles: dict[str, str | None]
    absent: dict[str, list[str]] = field(default_factory=dict)
    failure: str = ""
    facts: dict[str, str] = field(default_factory=dict)
    """As in the header; those of optimizers are left out."""
    measured: tuple[str, ...] = ()
    contracts: tuple[str, ...] = ()
    compiled: bool = False
    decodes: bool = False
    without: dict[str, str] = field(default_factory=dict)
    """Roles that such a model has not, with the reason."""
    fused: bool = False


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
            given = dict(batch) if batch is not None else _made_up(parts)
            return _with_abilities(parts, model, _observe(parts, given))
    except Exception as error:
        return _with_abilities(
            parts, model, Inspection(describe(parts), _roles(parts), failure=_told(error))
        )
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
    values = measure_forward(parts, capture).values
    seen, known = foreseen(parts, capture, absence.facts(capture, parts))
    values["output"].update(known)
    numbers = Measured(values).numbers()
    anatomy = describe(parts)
    reasons = absence.reasons(
        parts,
        anatomy.sites,
        # The effective rank is finished elsewhere, wherever attention is seen.
        (c for c in columns_for(anatomy.sites) if c.metric != "effective_rank"),
        set(numbers),
        seen,
        compiled=False,
        optimized=True,
        decodes=kv_cache.possible(parts),
    )
    absent: dict[str, list[str]] = {}
    for name, text in reasons.items():
        if not name.startswith(("training/", "validation/")):
            absent.setdefault(text, []).append(name)
    told = facts.read_all(facts.Subject(parts, [], seen))
    told.pop("optimizer", None)
    weights = facts.initial_weights(numbers)
    told |= {facts.INITIAL[0]: weights} if weights else {}
    nodes = {site.name: site.node for site in anatomy.sites}
    # What can be measured of every model has a value also where the part itself is not there.
    there = sorted(key for key in numbers if key[0] in nodes)
    found = dict.fromkeys(f"{nodes[site]}/{metric}" for site, metric in there)
    defined = {f"{node}/{m.name}" for m in METRICS if m.contract for node in m.nodes}
    contracts = tuple(name for name in found if _as_defined(name) in defined)
    return Inspection(anatomy, _roles(parts), absent, failure, told, tuple(found), contracts)


def _as_defined(name: str) -> str:
    node, _, metric = name.partition("/")
    return f"{kind_of(node)}/{metric}"


def _with_abilities(parts: ModelParts, model: nn.Module, found: Inspection) -> Inspection:
    found.compiled = is_compiled(model)
    found.decodes = kv_cache.possible(parts)
    found.without = _without(parts)
    found.fused = any(layer.packed is not None for layer in parts.layers)
    return found


def _without(parts: ModelParts) -> dict[str, str]:
    found = {}
    modules = list(parts.root.modules())
    if any(is_state_space(module) for module in modules):
        found["attention"] = "tokens are mixed by a state space, which is not looked into"
    if not any(isinstance(m, nn.Embedding) for m in modules if m is not parts.position_embedding):
        found["token_embedding"] = "it has no table: images, sound or features are read, no tokens"
    return found


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


def _pattern(parts: ModelParts, block: nn.Module, module: nn.Module) -> str:
    """Path of a module in a block, with ``*`` for the block's number."""
    if block not in parts.paths:
        block = next((part for part in block.children() if module in set(part.modules())), module)
    place = parts.paths.get(block, "")
    beside, inner = place.rpartition(".")[0], parts.paths.get(module, "?").removeprefix(place)
    return f"{beside}.*{inner}" if beside else f"*{inner}"


def _paths(parts: ModelParts, layers: list[LayerParts], role: str) -> str | None:
    """One path for all layers, ``*`` for the block's number; or how many layers have one."""
    paths: dict[str, int] = {}
    for layer in layers:
        holder = layer.cross if role in CROSS_ROLES else layer
        module = getattr(holder, CROSS_ROLES.get(role, role), None)
        if module is None:
            continue
        if module is layer.block and module not in parts.paths:
            # Put together of parts that stand in lists of their own.
            pattern = " + ".join(_pattern(parts, part, part) for part in module.children())
        else:
            pattern = _pattern(parts, layer.block, module)
        paths[pattern] = paths.get(pattern, 0) + 1
    if not paths:
        return None
    if len(paths) == 1 and set(paths.values()) == {len(layers)}:
        return next(iter(paths))
    return ", ".join(f"{path} (in {count} of {len(layers)})" for path, count in paths.items())
