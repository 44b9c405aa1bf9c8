"""Draw a fault at random: operator, severity, layers, seed."""

from __future__ import annotations

import random

from torch import nn
from torch.optim import Optimizer

from diagnoser.faults.catalogue import OPERATORS
from diagnoser.faults.fault import Clean, Fault, Operator, Value
from diagnoser.faults.parts import read_anatomy


def _layers(operator: Operator, value: Value | None, count: int, rng: random.Random) -> list[int]:
    """One layer in half of the cases, all in a third, else a random subset."""
    if not operator.layered:
        return []
    if operator.parameter == "layers":
        named = {"first": [0], "middle": [count // 2], "last": [count - 1]}
        return named.get(str(value), list(range(count)))
    kind = rng.random()
    if kind < 1 / 2:
        return [rng.randrange(count)]
    if kind < 5 / 6 or count < 3:
        return list(range(count))
    return sorted(rng.sample(range(count), rng.randint(2, count - 1)))


def draw(
    model: nn.Module,
    rng: random.Random,
    *,
    category: str | None = None,
    root_cause: str | None = None,
    operator: str | None = None,
    optimizer: Optimizer | None = None,
    length: int | None = None,
    clip: float | None = None,
    beyond: bool = False,
) -> Fault:
    """A fault for this model, uniform over its root causes, their operators and severities.

    A severity that equals the clean model's own value is never drawn. ``optimizer`` tells the
    clean weight decays (else AdamW's default is assumed), ``length`` the sequence length in
    tokens (else half of the model's maximum), ``clip`` the threshold the training loop clips
    gradients at (None: it does not clip). ``beyond``: draw from the ways beyond the 52 of
    taxonomy.csv too; one that ``operator`` names is drawn in any case.
    Raises ValueError where no operator of this model fits the request.
    """
    anatomy = read_anatomy(model)
    clean = Clean(anatomy, getattr(optimizer, "optimizer", optimizer), length, clip)
    fitting: dict[tuple[str, str], list[tuple[Operator, tuple[Value, ...]]]] = {}
    for candidate in OPERATORS.values():
        if (
            not candidate.fits(anatomy)
            or category not in (None, candidate.category)
            or root_cause not in (None, candidate.root_cause)
            or operator not in (None, candidate.code)
            or (candidate.beyond and not beyond and operator is None)
        ):
            continue
        values = candidate.choose_from(clean)
        if values or candidate.parameter is None:
            key = (candidate.category, candidate.root_cause)
            fitting.setdefault(key, []).append((candidate, values))
    if not fitting:
        wanted = ", ".join(
            f"{name}={given}"
            for name, given in (
                ("category", category),
                ("root_cause", root_cause),
                ("operator", operator),
            )
            if given is not None
        )
        raise ValueError(
            f"No fault with {wanted} fits a {anatomy.family} model; operators_for(model) lists "
            "those that do."
        )
    chosen, values = rng.choice(fitting[rng.choice(sorted(fitting))])
    value = rng.choice(values) if chosen.parameter is not None else None
    return Fault(
        operator=chosen.code,
        category=chosen.category,
        root_cause=chosen.root_cause,
        layers=tuple(_layers(chosen, value, len(anatomy.blocks), rng)),
        parameter=chosen.parameter,
        value=value,
        seed=rng.randrange(2**31),
    )
