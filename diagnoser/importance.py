"""Which components drove a diagnosis: each node kind's share in the lead of the cause named.

A root cause's logit is a sum over node kinds: what the contracts that fire there say for it, less
the squared distance to its prototype in that kind's group. Its lead over a rival therefore
decomposes by node kind without any rest (the DEFault++ manuscript decomposes the distances alone).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from diagnoser.votes import CAUSE_CATEGORY

if TYPE_CHECKING:
    from diagnoser.votes import Votes


@torch.no_grad()
def by_kind(
    votes: Votes, parts: torch.Tensor, fired: torch.Tensor, met_at: torch.Tensor
) -> torch.Tensor:
    """(45, kinds) what every node kind adds to every root cause's logit, for one graph.

    ``parts``: (45, kinds) squared distances. ``fired``: (rules,) 0 or 1. ``met_at``: (rules,) the
    number of the node kind at which a rule is met; of rules that are not, anything.
    """
    loudest, rule = votes.said(fired[None] * votes.reliable)[0].max(dim=0)
    logits = -parts
    logits[torch.arange(len(logits)), met_at[rule]] += votes.cause * loudest
    return logits


def importance(logits: torch.Tensor, predicted: int) -> torch.Tensor:
    """(kinds,) share of each node kind in the lead of the ``predicted`` root cause over its two
    nearest rivals: of its own category, and of any other. All 0 where no kind speaks for it.

    The first tells why this cause of the category, the second why this category. ``logits``:
    (45, kinds), of :func:`by_kind`; 0 in kinds that the model does not have.
    """
    category = CAUSE_CATEGORY[predicted]
    total = logits.sum(dim=1)
    others = [n for n in range(len(CAUSE_CATEGORY)) if n != predicted]
    lead = torch.zeros_like(logits[0])
    for inside in (True, False):
        rivals = [n for n in others if (CAUSE_CATEGORY[n] == category) is inside]
        if rivals:
            lead += logits[predicted] - logits[max(rivals, key=lambda n: float(total[n]))]
    gain = lead.clamp(min=0.0)
    return gain / gain.sum().clamp(min=1e-9)
