"""Values known for every step without measuring: loss, learning rate, time, what a user logs."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch

from probe.schema import Scalars

Number = float | torch.Tensor


@dataclass(slots=True)
class Row:
    """The values of one step. Tensors are 0-d copies, read in the publishing thread."""

    step: int
    time: float
    values: dict[str, Number] = field(default_factory=dict)
    losses: list[Number] = field(default_factory=list)
    """One per micro-batch, as the model returned them."""
    began: bool = False
    """A forward of this step was seen: what is logged from now on belongs to it."""
    shares: bool = False
    """The losses are shares of the step's (divided by its number of tokens), to be summed."""

    skipped: list[Number] = field(default_factory=list)
    """Any that is not 0: gradients were thrown away, or an optimizer was called and did nothing."""

    def loss(self) -> Number | None:
        """What the user logged as loss, else the mean over the micro-batches."""
        if "loss" in self.values:
            return self.values["loss"]
        if not self.losses:
            return None
        if len(self.losses) == 1:
            return self.losses[0]
        total = sum(self.losses)
        return total if self.shares else total / len(self.losses)


def kept(value: torch.Tensor) -> Number:
    """A 0-d tensor's value as it is now, whatever becomes of the tensor; never waits.

    On the CPU nothing has to be waited for, and a number is cheaper than a copy.
    """
    return value.item() if value.is_cpu else value.detach().to(torch.float32, copy=True)


def number(value: Number) -> float:
    """A float from a float or a 0-d tensor; may wait for the device, so only in the thread."""
    return float(value)


def pack(rows: list[Row], seq: int, rank: int) -> Scalars | None:
    """One record for several rows; a name missing in a row is NaN. None for no rows."""
    if not rows:
        return None
    names: dict[str, None] = {}
    for row in rows:
        names.update(dict.fromkeys(row.values))
    names.pop("loss", None)
    ordered = ("loss", *names)
    values = np.full((len(rows), len(ordered)), np.nan, dtype="<f4")
    for at, row in enumerate(rows):
        loss = row.loss()
        if loss is not None:
            values[at, 0] = number(loss)
        for name, value in row.values.items():
            values[at, ordered.index(name)] = number(value)
    return Scalars(
        seq=seq,
        rank=rank,
        names=ordered,
        steps=tuple(row.step for row in rows),
        times=tuple(row.time for row in rows),
        values=values.tobytes(),
    )
