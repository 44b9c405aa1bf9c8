"""Which of several processes this one is."""

from __future__ import annotations

import os

import torch


def ranks() -> tuple[int, int]:
    """(rank, how many there are), from torch.distributed, else as torchrun sets it."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
