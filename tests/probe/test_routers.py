"""Routers of mixtures of experts: healthy ones do not fire, changed ones do."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import test_odd_models as written
import torch
import transformers as hf
from family_grid import contract_of, over
from more_models import DECODER, GPT_LIKE
from test_more_families import run
from torch import nn

from diagnoser import graph, schema
from diagnoser.engine import Engine
from probe.anatomy import find

MIXTRAL = {"num_local_experts": 4}
QWEN = {
    "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32,
    "shared_expert_intermediate_size": 32,
}  # fmt: skip
MODELS: dict[str, Callable[[], nn.Module]] = {
    "mixtral": lambda: hf.MixtralForCausalLM(hf.MixtralConfig(**DECODER, **MIXTRAL)),
    "mixtral, balanced": lambda: hf.MixtralForCausalLM(
        hf.MixtralConfig(**DECODER, **MIXTRAL, output_router_logits=True)
    ),
    "qwen2_moe": lambda: hf.Qwen2MoeForCausalLM(
        hf.Qwen2MoeConfig(**DECODER, **QWEN, norm_topk_prob=False)
    ),
}
CONTRACTS = ("logits_error", "choice_error", "weight_error", "sum_gap", "count_gap", "unmoved")


def made(name: str) -> nn.Module:
    torch.manual_seed(1)
    return MODELS[name]().train()


def routers(model: nn.Module) -> list[nn.Module]:
    found = [layer.router for layer in find(model).layers]
    assert all(router is not None for router in found)
    return found


@pytest.mark.parametrize("name", MODELS)
def test_healthy_routers_are_read_and_nothing_fires(name, tmp_path):
    seen = run(made(name), GPT_LIKE, tmp_path / "t")
    assert over(seen) == {}
    for metric in (*CONTRACTS, "entropy", "most_used", "idle_experts", "load_variation", "weight"):
        assert not np.isnan(seen[f"router@1/{metric}"]).any(), metric
    assert (seen["router@1/weight_error"] < 1e-5).all()
    assert ((seen["router@1/most_used"] >= 0.25) & (seen["router@1/most_used"] <= 0.5)).all()
    told = "balanced" not in name
    assert np.isnan(seen["router@1/untrained"]).all() != told
    assert ("router/untrained" in seen.header.absent) != told
    assert seen.header.anatomy.site("router@1").modules == ("model.layers.1.mlp.gate",)


@pytest.mark.matrix
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("how", ["autocast", "weights"])
def test_healthy_in_16_bits(name, how, tmp_path):
    model = made(name).to(torch.bfloat16 if how == "weights" else torch.float32)
    with torch.autocast(
        "cpu", dtype=torch.bfloat16, enabled=how == "autocast", cache_enabled=False
    ):
        assert over(run(model, GPT_LIKE, tmp_path / "t")) == {}


def one_expert(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    routers(model)[1].top_k = 1


def weights_not_normed(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    routers(model)[1].register_forward_hook(lambda m, a, out: (out[0], 0.7 * out[1], out[2]))


def at_random(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """The router is replaced by one that does not look at its input."""

    def replace(module, args, out):
        logits = torch.rand(out[0].shape, generator=torch.Generator().manual_seed(3))
        weights, chosen = logits.softmax(dim=-1).topk(2, dim=-1)
        return logits, weights / weights.sum(dim=-1, keepdim=True), chosen

    routers(model)[1].register_forward_hook(replace)


def others_chosen(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    def replace(module, args, out):
        chosen = (-out[0]).topk(2, dim=-1).indices
        weights = out[0].softmax(dim=-1).gather(-1, chosen)
        return out[0], weights / weights.sum(dim=-1, keepdim=True), chosen

    routers(model)[1].register_forward_hook(replace)


def cut_off(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """No gradient reaches the router."""
    routers(model)[1].register_forward_hook(lambda m, a, out: (out[0], out[1].detach(), out[2]))


def experts_silent(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """The gradients of two experts are lost."""

    def lose(gradient):
        gradient = gradient.clone()
        gradient[:2] = 0.0
        return gradient

    for parameter in find(model).layers[1].experts.experts.parameters():
        parameter.register_hook(lose)


FAULTS = {
    one_expert: "count_gap", weights_not_normed: "sum_gap", at_random: "logits_error",
    others_chosen: "choice_error", cut_off: "unmoved", experts_silent: "untrained",
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_changed_router_is_seen(fault, tmp_path):
    found = over(run(made("mixtral"), GPT_LIKE, tmp_path / "t", fault))
    fired = {key for key in found if contract_of(key).startswith("router/")}
    assert f"router@1/{FAULTS[fault]}" in fired
    assert all(key.startswith("router@1/") for key in fired), fired


def test_an_expert_that_nothing_chose_is_no_fault(tmp_path):
    torch.manual_seed(1)
    config = hf.MixtralConfig(**DECODER, num_local_experts=128)
    seen = run(hf.MixtralForCausalLM(config).train(), GPT_LIKE, tmp_path / "t")
    assert (seen["router@1/idle_experts"] > 0.0).all()
    assert (seen["router@1/untrained"] == 0.0).all() and over(seen) == {}


class Experts(nn.Module):
    """Two of four, each a module of its own that gets its tokens only."""

    def __init__(self) -> None:
        super().__init__()
        width = written.WIDTH
        self.gate = nn.Linear(width, 4)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(width, 48), nn.ReLU(), nn.Linear(48, width)) for _ in range(4)
        )

    def forward(self, x):
        flat = x.flatten(0, 1)
        weights, chosen = self.gate(flat).softmax(dim=-1).topk(2, dim=-1)
        out = torch.zeros_like(flat)
        for at, expert in enumerate(self.experts):
            rows, place = torch.where(chosen == at)
            out = out.index_add(0, rows, expert(flat[rows]) * weights[rows, place, None])
        return out.view_as(x)


class Block(written.Block):
    def __init__(self) -> None:
        super().__init__(written.Interleaved, inline=False)
        del self.ff1, self.ff2
        self.moe = Experts()

    def forward(self, x):
        x = x + self.attn(self.n1(x))
        return x + self.moe(self.n2(x))


def test_experts_in_a_list_are_counted(tmp_path):
    torch.manual_seed(1)
    model = written.Model(written.Interleaved)
    model.blocks = nn.ModuleList(Block() for _ in range(3))
    seen = written.run(model, tmp_path / "t")
    assert over(seen) == {}
    used = seen["router@0/most_used"]
    assert ((used >= 0.25) & (used <= 0.5)).all()
    assert not np.isnan(seen["router@0/entropy"]).any()
    assert "router/untrained" in seen.header.absent and "router/count_gap" in seen.header.absent


def test_the_network_does_not_know_them_and_their_contracts_are_evidence(tmp_path):
    seen = run(made("mixtral"), GPT_LIKE, tmp_path / "t", one_expert)
    kinds = schema.node_kinds()
    assert "router" not in kinds
    assert not any("router" in name for name in graph.build(seen.header.anatomy, kinds).names)
    engine = Engine(seen.header)
    for frame in seen.frames:
        diagnosis = engine.update(frame)
    told = [e for e in diagnosis.evidence if e.site == "router@1" and e.metric == "count_gap"]
    assert len(told) == 1 and "times the configured number of experts" in told[0].text
