"""The contracts' own voice in the network."""

from __future__ import annotations

import torch
from torch import nn

from diagnoser.rules import RULES, cause_table
from diagnoser.taxonomy import CATEGORY_NAMES, ROOT_CAUSE_KEYS

CAUSE_CATEGORY: tuple[int, ...] = tuple(
    CATEGORY_NAMES.index(key.split("/")[0]) for key in ROOT_CAUSE_KEYS
)
"""Category's index of every root cause."""

UNRELIABLE = 0.01
"""A rule that is met in more than this share of healthy samples is not listened to."""


class Votes(nn.Module):
    """What the rules met say, in causal order: 1 for the first rule's first cause, half as much
    for every later rule. Rules that also speak on healthy training runs are muted.

    Their voice enters every head directly, with weights that start large and are then trained: a
    fault too rare to be learnt, or on a model unlike those seen, is still named by its contract.
    """

    causes: torch.Tensor
    reliable: torch.Tensor
    hard: torch.Tensor
    members: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("causes", torch.from_numpy(cause_table()))
        self.register_buffer("reliable", torch.ones(len(RULES)))
        hard = torch.tensor([float(not rule.soft) for rule in RULES])
        self.register_buffer("hard", hard, persistent=False)
        members = nn.functional.one_hot(torch.tensor(CAUSE_CATEGORY), len(CATEGORY_NAMES))
        self.register_buffer("members", members.float())
        self.detection = nn.Parameter(1.5 + 4.5 * hard)
        self.category = nn.Parameter(torch.tensor(10.0))
        self.cause = nn.Parameter(torch.tensor(10.0))

    width = len(RULES) + len(ROOT_CAUSE_KEYS)

    def fit(self, fired_when_healthy: torch.Tensor) -> None:
        """Mute rules met in too many healthy samples, given (samples, rules)."""
        if len(fired_when_healthy):
            self.reliable.copy_((fired_when_healthy.mean(dim=0) <= UNRELIABLE).float())

    def forward(self, fired: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(G, rules) heard, (G, 45) votes for root causes, (G, 12) for categories."""
        heard = fired * self.reliable
        causes = self.said(heard).amax(dim=1)
        categories = (causes[:, :, None] * self.members[None]).amax(dim=1)
        return heard, causes, categories

    def said(self, heard: torch.Tensor) -> torch.Tensor:
        """(G, rules, 45) what every rule says for every root cause; the loudest counts."""
        earlier = heard.cumsum(dim=1) - heard
        weight = heard * 0.5**earlier
        return weight[:, :, None] * self.causes[None]

    def named(self, heard: torch.Tensor) -> torch.Tensor:
        """(G, 45) 1 for the first cause of the first rule that speaks for its category."""
        first = nn.functional.one_hot(self.causes.argmax(dim=1), self.causes.shape[1]).float()
        speaking = heard[:, :, None] * (first @ self.members)[None]
        earliest = speaking * (speaking.cumsum(dim=1) == 1.0)
        return earliest.amax(dim=2) @ first

    def certain(self, heard: torch.Tensor) -> torch.Tensor:
        """(G,) bool: a reliable rule is met that no healthy model meets."""
        return (heard * self.hard).amax(dim=1) > 0

    def flagged(self, heard: torch.Tensor) -> torch.Tensor:
        """(G,) what the strongest rule adds to the detection logit."""
        return (heard * self.detection).amax(dim=1)
