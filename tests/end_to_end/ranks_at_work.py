"""What each rank of a test under torchrun does: trains twice, without and with the probe.

torchrun --nproc-per-node 2 ranks_at_work.py FOLDER MODE..., MODE being ddp, fsdp, fsdp1 (torch's
first FSDP), no_sync (DDP that accumulates two micro-batches) or alone (DDP, with the probe on rank
0 only). Writes what it found to FOLDER/MODE-RANK.json.
"""

from __future__ import annotations

import json
import sys
from contextlib import nullcontext
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.distributed.fsdp.wrap import ModuleWrapPolicy
from torch.nn.parallel import DistributedDataParallel

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
from hand_written import Config, TinyGPT

import probe
from monitor.targets import describe, first_ranks
from probe import registry

STEPS = 5


def made(mode: str) -> nn.Module:
    torch.manual_seed(0)
    model = TinyGPT(Config())
    if mode == "fsdp1":
        policy = ModuleWrapPolicy({type(model.blocks[0])})
        cpu = torch.device("cpu")
        return FullyShardedDataParallel(
            model, auto_wrap_policy=policy, use_orig_params=True, device_id=cpu
        )
    if mode != "fsdp":
        return DistributedDataParallel(model)
    for block in model.blocks:
        fully_shard(block)
    fully_shard(model)
    return model


def train(mode: str, folder: Path, watched: bool) -> dict:
    model = made(mode)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    rank = dist.get_rank()
    torch.manual_seed(1 + rank)
    options = {"every": 1, "budget": None, "run": mode, "trace": folder / f"{mode}.trace"}
    found = {"losses": []}
    before = dist.group.WORLD._get_sequence_number_for_group()
    p = probe.attach(model, optimizer, **options) if watched else None
    for step in range(STEPS):
        for last in (False, True) if mode == "no_sync" else (True,):
            tokens = torch.randint(0, 96, (4, 17))
            with nullcontext() if last else model.no_sync():
                logits = model(tokens[:, :-1])
                loss = nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
                loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if p is not None:
            p.log(loss=loss)
        found["losses"].append(loss.item().hex())
        if step == 2 and p is not None:
            assert p._publisher.wait_opened(30)
            found["run"] = p.run
    found["collectives"] = dist.group.WORLD._get_sequence_number_for_group() - before
    dist.barrier()  # the script's own, to see both ranks registered
    if p is not None:
        lines = [describe(e) for e in first_ranks() if e.name == mode]
        found["listed"] = [line.replace(p.run, "RUN") for line in lines]
        found["ranks"] = sorted(e.rank for e in registry.list_runs() if e.run == p.run)
    dist.barrier()
    if p is not None:
        p.close()
    whole = [q.full_tensor() if hasattr(q, "full_tensor") else q for q in model.parameters()]
    found["weights"] = float(sum(w.detach().double().sum() for w in whole)).hex()
    found |= {"rng": torch.get_rng_state().sum().item()}
    return found


def main() -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    folder, rank = Path(sys.argv[1]), dist.get_rank()
    for mode in sys.argv[2:]:
        plain = train(mode, folder, watched=False)
        watched = train(mode, folder, watched=mode != "alone" or rank == 0)
        text = json.dumps({"plain": plain, "watched": watched})
        (folder / f"{mode}-{rank}.json").write_text(text)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
