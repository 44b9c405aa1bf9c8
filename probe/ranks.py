"""Which of several processes this one is, and the run that they all belong to.

Nothing here speaks to another process: every rank works out the same name of the run by itself.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import time
from collections.abc import Mapping

import torch

from probe.processes import boot_id, start_time, started_at

_attached = itertools.count(1)


def ranks() -> tuple[int, int]:
    """(rank, how many there are), from torch.distributed, else as torchrun sets it."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def shared_run_id(world: int) -> str | None:
    """The id of the run that all ranks share, to be asked once per attach; None for one rank.

    Ranks attach the same number of times. Sortable where the start of what launched them is known
    to all: on one machine, and under Slurm.
    """
    if world < 2:
        return None
    began, launch = _launch(os.environ, world, os.getppid())
    digest = hashlib.sha256(f"{launch}/{next(_attached)}".encode()).hexdigest()[:6]
    return f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime(began))}-000-{digest}"


def _launch(environ: Mapping[str, str], world: int, parent: int) -> tuple[float, str]:
    """(when the ranks were launched, or 0.0, what names that launch)."""
    get = environ.get
    restarts = get("TORCHELASTIC_RESTART_COUNT", "0")
    elastic = get("TORCHELASTIC_RUN_ID", "none")
    local = get("LOCAL_WORLD_SIZE", str(world)) == str(world)
    if get("SLURM_JOB_ID") and elastic == "none":
        began = float(get("SLURM_JOB_START_TIME") or 0.0)
        return began, f"slurm/{get('SLURM_JOB_ID')}/{get('SLURM_STEP_ID')}"
    if local:
        # One machine: torchrun, or what spawned the ranks, is the parent of all of them.
        return started_at(parent), f"{boot_id()}/{parent}/{start_time(parent)}/{restarts}"
    where = f"{get('MASTER_ADDR')}:{get('MASTER_PORT')}"
    return 0.0, f"{elastic}/{where}/{restarts}"
