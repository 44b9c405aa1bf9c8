"""Branches left out for whole examples, as stochastic depth does it (Huang et al., 2016).

Where a config states none of it, it is a fault like any other dropout that nobody asked for. A
model that no config describes has it because its author wrote it: its sums are judged by the
examples that kept the branch, which is grown there by what the others lost.
"""

from __future__ import annotations

import torch

from probe.habits import Habits

_MOST = 5.0
"""How much a branch is grown at most: by 1 / (1 - p), p being 0.8."""


def left_out(before: torch.Tensor, branch: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
    """(r,) bool: rows of (r, p, width) in which nothing of the branch joined the stream, though it
    was large enough not to be rounded away, or in which it is zero throughout."""
    eps = torch.finfo(after.dtype).eps
    large = branch.abs() > 8.0 * eps * before.abs()
    joined = (large & (after != before)).flatten(1).any(dim=1)
    return ~joined & (large.flatten(1).any(dim=1) | (branch == 0).flatten(1).all(dim=1))


def in_use(habits: Habits, stack: str, rows: list[torch.Tensor]) -> torch.Tensor | None:
    """0-d bool: some rows, and not all, of a branch of this stack were left out, now or in an
    earlier sample. ``rows``: of each branch, which were now. None where there is no branch."""
    if not rows:
        return None
    now = torch.stack([(gone.any() & ~gone.all()) for gone in rows]).any()
    return habits.ever(f"{stack}/stochastic_depth", now)


def growth(
    before: torch.Tensor, branch: torch.Tensor, after: torch.Tensor, kept: torch.Tensor
) -> torch.Tensor:
    """0-d: by how much the branch was grown in the rows that ``kept`` (r, 1, 1) it; 1 where that is
    not what happened to it."""
    added, total = branch * kept, (after - before) * kept
    gain = (added * total).sum() / added.square().sum().clamp_min(1e-12)
    return torch.where((gain > 1.0) & (gain < _MOST), gain, 1.0)
