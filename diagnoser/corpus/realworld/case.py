"""What a reproduction is: an issue, what went wrong, and a script in two versions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

Shown = Literal["training", "generating"]


@dataclass
class Script:
    """A script ready to run. ``step()`` does one training step, or generates once, and returns the
    loss, shape (), or the tokens, (rows, tokens). ``optimizer`` None: nothing is trained."""

    model: nn.Module
    optimizer: torch.optim.Optimizer | None
    step: Callable[[], torch.Tensor]
    steps: int


@dataclass(frozen=True)
class Case:
    """One public issue. ``build(fixed)`` makes the script without and with the fault, alike but for
    it, from torch's global generator."""

    issue: str
    """``owner/repository#number``."""
    reported: str
    """What the issue says, in a line."""
    wrong: str
    """The mechanism, in a sentence or two."""
    category: str
    root_cause: str
    shown: Shown
    build: Callable[[bool], Script]
    layers: tuple[int, ...] = ()
    """Where the fault sits; empty where it is in every layer, or in none."""

    @property
    def name(self) -> str:
        """``transformers#35896``."""
        return self.issue.rpartition("/")[2]

    @property
    def url(self) -> str:
        where, _, number = self.issue.partition("#")
        return f"https://github.com/{where}/issues/{number}"
