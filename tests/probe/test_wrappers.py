"""Wrappers around a model, also in one another: the model in them is what is found and named."""

from __future__ import annotations

from collections.abc import Callable

import peft
import pytest
import torch
import torch.distributed as dist
from family_grid import over
from family_models import batch, make
from tiny_models import Seen
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel
from training_loops import kinds

import probe


@pytest.fixture
def one_rank(tmp_path):
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/ranks", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def compiled(model: nn.Module) -> nn.Module:
    torch._dynamo.reset()
    return torch.compile(model, backend="eager")


def adapted(model: nn.Module) -> nn.Module:
    return peft.get_peft_model(model, peft.LoraConfig(r=4, target_modules=["c_attn"]))


def sharded(model: nn.Module) -> nn.Module:
    for block in model.transformer.h:
        fully_shard(block)
    return fully_shard(model)


WRAPPERS: dict[str, tuple[Callable[[nn.Module], nn.Module], ...]] = {
    "DDP over PEFT": (adapted, DistributedDataParallel),
    "DataParallel": (nn.DataParallel,),
    "compile over DDP": (DistributedDataParallel, compiled),
    "DDP over compile": (compiled, DistributedDataParallel),
    "compile over PEFT": (adapted, compiled),
    "compile over FSDP2": (sharded, compiled),
}
SHORT = ("DDP over PEFT",)


def _looked_through(name: str, path) -> None:
    model = make("gpt2")
    for wrap in WRAPPERS[name]:
        model = wrap(model)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    options = {"endpoint": False, "every": 1, "budget": None, "trace": path}
    with probe.attach(model, optimizer, **options):
        for _ in range(3):
            model(**batch("gpt2")).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    seen = Seen(path)
    anatomy = seen.header.anatomy
    assert (anatomy.model, anatomy.layers, anatomy.heads) == ("GPT2LMHeadModel", 3, 4)
    assert seen.header.name == "gpt2lmheadmodel"
    assert [frame.step for frame in seen.frames] == [0, 1, 2]
    assert not kinds(seen, "probe_off") and over(seen) == {}
    assert (seen["qkv@1/update_ratio"] > 0).any() or "FSDP" in name
    assert ("compiled" in seen.header.absent.get("forward", "")) == ("compile" in name)


@pytest.mark.works_with("Forms of a model", "wrappers in one another: compile, DDP, FSDP2, PEFT")
@pytest.mark.parametrize("name", SHORT)
def test_wrappers_are_looked_through(name, one_rank, tmp_path):
    _looked_through(name, tmp_path / "t")


@pytest.mark.matrix
@pytest.mark.works_with("Forms of a model", "wrappers in one another: compile, DDP, FSDP2, PEFT")
@pytest.mark.parametrize("name", [name for name in WRAPPERS if name not in SHORT])
def test_all_wrappers_are_looked_through(name, one_rank, tmp_path):
    _looked_through(name, tmp_path / "t")
