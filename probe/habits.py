"""What a model that states nothing did alike in its first samples: what it is held to later on.

A mask, an activation or a kernel that changes in every layer at once leaves no layer to compare
with. A model that goes from one to another by itself, batch by batch, has no such habit.
"""

from __future__ import annotations

import math

import torch

_SAMPLES = 6
"""How many of the first samples must agree. A model that tosses a coin does so once in 32."""


class Habits:
    """Answers, 0-d tensors by name, that the first samples of a run gave. Nothing here waits for a
    device."""

    def __init__(self) -> None:
        self._kept: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}

    def formed(self, name: str) -> torch.Tensor:
        """0-d bool: whether the first samples agreed."""
        _, agreed = self._kept.get(name, (None, torch.zeros((), device="cpu")))
        return agreed >= _SAMPLES

    def held_to(self, name: str, now: torch.Tensor) -> torch.Tensor:
        """What the first samples answered, where they agreed; else ``now``."""
        known = self._known(name, now)
        return now if known is None else torch.where(self.formed(name), known[0], now)

    def saw(self, name: str, now: torch.Tensor) -> None:
        """Count one sample's answer. Once a sample."""
        known = self._known(name, now)
        if known is None:
            self._kept[name] = now, torch.ones((), device=now.device)
            return
        first, agreed = known
        counted = torch.where(now == first, agreed + 1, -torch.inf)
        self._kept[name] = first, torch.where(self.formed(name), agreed, counted)

    def ever(self, name: str, now: torch.Tensor) -> torch.Tensor:
        """0-d bool: whether it was so in this sample or in any before."""
        known = self._known(name, now)
        found = now if known is None else known[0] | now
        self._kept[name] = found, torch.zeros((), device=now.device)
        return found

    def first_number(self, name: str, now: float) -> float:
        """What the first samples agreed on, NaN where they have not yet or never will. Counts
        ``now``; once a sample."""
        # Not where new tensors go by default: reading it would wait for that device.
        value = torch.tensor(float(now), device="cpu")
        first = float(self.held_to(name, value)) if self.formed(name) else math.nan
        self.saw(name, value)
        return first

    def _known(self, name: str, now: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor] | None:
        """None also after the model was moved to another device: it begins anew there."""
        known = self._kept.get(name)
        return known if known is not None and known[0].device == now.device else None
