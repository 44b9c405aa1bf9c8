"""What a counterfactual rerun did to the outputs: changes that must not matter, and that must."""

from __future__ import annotations

import torch

from probe.anatomy import ModelParts
from probe.counterfactual import Kept
from probe.measure.numbers import relative
from probe.measure.sampled import Values
from probe.quiet import quiet
from probe.rerun import Ran, run
from probe.schema import Metric

AGREEMENT = 1e-5
"""Two runs alike may differ by so much; else nothing is measured."""
NOTHING = 1e-8
"""A change of the outputs below this, or within what two runs alike differ by, is none. Where nothing
depends on what was changed the arithmetic is the same, and so are its results."""
VARIED = 1e-6
"""Outputs at neighbouring tokens that differ by less say nothing of their inputs."""


def _must_not_matter(name: str, meaning: str) -> Metric:
    return Metric(
        name,
        ("output",),
        "residual",
        "relative",
        f"change of the outputs {meaning}",
        "0",
        contract=True,
        tolerance=1e-4,
        rare=True,
    )


def _must_matter(kind: str, changed: str, missing: str) -> tuple[Metric, Metric]:
    return (
        Metric(
            f"{kind}_effect",
            ("output",),
            "positive",
            "relative",
            f"change of the outputs {changed}; in float32",
            "above 0",
            rare=True,
        ),
        Metric(
            f"{kind}_missing",
            ("output",),
            "share",
            "0 or 1",
            missing,
            "0",
            contract=True,
            rare=True,
        ),
    )


METRICS = (
    _must_not_matter("padding_effect", "at real tokens when padding holds other tokens"),
    _must_not_matter("future_effect", "when later tokens are others, in a causal model"),
    _must_not_matter("packing_effect", "when another packed document's tokens are others"),
    _must_not_matter("batch_effect", "when rows change places and the others hold other tokens"),
    _must_not_matter("trim_effect", "when a row runs alone and without its padding on the right"),
    *_must_matter(
        "position",
        "when positions are in reverse order",
        "reversing the order of positions changes no output",
    ),
    *_must_matter(
        "context",
        "when the tokens before, or around, are others",
        "other tokens before, or around, change no output",
    ),
)

MUST_MATTER = ("position", "context")


def names_of(kind: str) -> tuple[str, ...]:
    """The metrics that a kind of counterfactual gives."""
    return (f"{kind}_effect", *((f"{kind}_missing",) if kind in MUST_MATTER else ()))


def measure(parts: ModelParts, kept: Kept) -> dict[str, Values]:
    """Run the model as it is, again, and with the change; values of site ``output``.

    Raises what :func:`probe.rerun.run` raises. Empty where the outputs cannot be compared.
    """
    base, change = kept.base, kept.change
    calls = [(base, None), (base, None), (change.call or base, change.other)]
    ran = run(parts.root, calls, kept.module)
    with quiet():
        return _compared(kept, ran, parts.sequence_first)


def _compared(kept: Kept, ran: list[Ran], turned: bool) -> dict[str, Values]:
    change = kept.change
    watch = change.watch
    one, two = (_by_row(r.states, len(watch), watch.shape[1], turned) for r in ran[:2])
    rows = range(len(watch)) if change.rows is None else change.rows
    length = watch.shape[1] if change.length is None else change.length
    three = _by_row(ran[2].states, len(rows), length, turned)
    if one is None or two is None or three is None or not ran[2].found:
        return {}
    before, watch = (torch.stack([t[row, :length] for row in rows]) for t in (one, watch))
    # Padding may hold NaN, which no weight of 0 takes away.
    effect = relative(*(torch.where(watch[..., None], t, 0.0) for t in (before, three)))
    noise = relative(one.nan_to_num(), two.nan_to_num())
    effect = torch.where((noise <= AGREEMENT) & watch.any(), effect, torch.nan)
    values: Values = {}
    if kept.kind not in MUST_MATTER:
        values[f"{kept.kind}_effect"] = effect
    elif not any(r.casts for r in ran) and one.dtype == torch.float32:
        effect = torch.where(_varied(one), effect, torch.nan)
        none = effect <= torch.clamp_min(2 * noise, NOTHING)
        missing = torch.where(effect.isnan(), effect, none.float())
        values |= {f"{kept.kind}_effect": effect, f"{kept.kind}_missing": missing}
    return {"output": values}


def _by_row(
    states: torch.Tensor | None, rows: int, length: int, turned: bool
) -> torch.Tensor | None:
    """Outputs as (rows, length, c); None where they have another shape."""
    if states is not None and states.dim() == 2 and len(states) == rows * length:
        states = states.unflatten(0, (rows, length))
    if states is None or states.dim() != 3:
        return None
    if turned and tuple(states.shape[:2]) == (length, rows):
        states = states.transpose(0, 1)
    return states if tuple(states.shape[:2]) == (rows, length) else None


def _varied(one: torch.Tensor) -> torch.Tensor:
    """Whether outputs differ from each other at all: a head of zeros says nothing of its input."""
    return relative(one.nan_to_num(), one.nan_to_num().roll(1, dims=1)) > VARIED
