"""Adapters on linears: their products are recomputed, and those that nothing uses are noticed."""

from __future__ import annotations

import numpy as np
import peft
import pytest
import torch
import torch.nn.functional as F
from family_grid import contract_of, over
from family_models import batch, make, train, with_lora
from tiny_models import Seen
from torch import nn

import probe
from probe.anatomy import find

FAMILIES = ("bert", "gpt2", "llama")


def run(model: nn.Module, family: str, trace, steps: int = 4, **options) -> Seen:
    train(model.train(), family, steps, trace=trace, **options)
    seen = Seen(trace)
    assert not [r.text for r in seen.records if getattr(r, "kind", "") == "probe_off"]
    return seen


def fired(seen: Seen) -> set[str]:
    return {contract_of(key) for key in over(seen)}


def grown(model: nn.Module) -> nn.Module:
    """As after some training: what starts at zero is no longer."""
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.1)
    return model


@pytest.mark.works_with("Trainers", "PEFT: LoRA, DoRA, rsLoRA, PiSSA")
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"use_dora": True},
        {"use_rslora": True},
        {"lora_bias": True},
        {"init_lora_weights": "pissa"},
    ],
    ids=lambda options: next(iter(options), "plain"),
)
def test_the_product_of_every_kind_is_recomputed(family, options, tmp_path):
    if family == "llama":
        options = {name: value for name, value in options.items() if name != "lora_bias"}
    model = grown(with_lora(family, 0.2, **options))
    seen = run(model, family, tmp_path / "t")
    assert over(seen) == {}
    errors = [seen[f"qkv@1/{name}_error"] for name in "qkv"] + [seen["ffn@1/linear_error"]]
    assert np.max(errors) < 1e-4


@pytest.mark.works_with("Trainers", "PEFT: (IA)3, AdaLoRA, LoHa, prompt and prefix tuning")
@pytest.mark.parametrize(
    "config",
    [
        peft.IA3Config(target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"]),
        peft.AdaLoraConfig(target_modules=["q_proj"], total_step=20, init_r=4, target_r=2),
        peft.LoHaConfig(target_modules=["q_proj", "v_proj"]),
        peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=5),
        peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=5),
    ],
    ids=lambda config: type(config).__name__,
)
def test_nothing_fires_with_other_kinds_of_tuning(config, tmp_path):
    seen = run(peft.get_peft_model(make("llama"), config), "llama", tmp_path / "t")
    assert over(seen) == {} and len(seen.frames) == 4


def test_several_adapters_merged_ones_and_none(tmp_path):
    model = grown(with_lora("llama"))
    model.add_adapter("second", peft.LoraConfig(r=2, target_modules=["q_proj", "down_proj"]))
    model.base_model.set_adapter(["default", "second"])
    seen = run(grown(model), "llama", tmp_path / "two")
    assert over(seen) == {} and seen["qkv@1/q_error"].max() < 1e-4
    model = grown(with_lora("llama"))
    model.merge_adapter()
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    seen = run(model, "llama", tmp_path / "merged")
    assert fired(seen) <= {"qkv/unmoved", "attention/unmoved", "ffn/unmoved"}
    assert seen["qkv@1/q_error"].max() < 1e-4


def test_adapters_that_transformers_puts_into_the_model_itself(tmp_path):
    model = make("gpt2")
    model.add_adapter(peft.LoraConfig(r=4, target_modules=["c_attn"]))
    seen = run(grown(model), "gpt2", tmp_path / "t")
    assert over(seen) == {} and seen["qkv@1/v_error"].max() < 1e-4


def test_an_adapter_without_a_gradient_yet_is_healthy_and_one_that_stays_so_is_not(tmp_path):
    seen = run(with_lora("llama"), "llama", tmp_path / "healthy", warm_up=3)
    assert (seen["qkv@1/unmoved"] == 0).all()
    model = with_lora("llama")
    up = model.get_base_model().model.layers[1].self_attn.q_proj.lora_B["default"]
    up.weight.register_hook(torch.zeros_like)
    seen = run(model, "llama", tmp_path / "still")
    assert (seen["qkv@1/unmoved"] > 0).all() and (seen["qkv@2/unmoved"] == 0).all()


def test_a_wrong_adapted_product_is_seen(tmp_path):
    model = grown(with_lora("gpt2"))
    attention = model.get_base_model().transformer.h[1].attn
    attention.c_attn.lora_B["default"].register_forward_hook(lambda m, args, out: 2.0 * out)
    seen = run(model, "gpt2", tmp_path / "t")
    assert {"qkv/q_error", "qkv/k_error", "qkv/v_error"} <= fired(seen)


def _held_aside(model: nn.Module) -> None:
    """The forward holds on to the projections as they were before the adapters came."""
    for layer in model.model.layers:
        stale = layer.self_attn.q_proj
        layer.self_attn.forward = _with(layer.self_attn, "q_proj", stale)


def _with(module: nn.Module, name: str, stale: nn.Module):
    original = module.forward

    def forward(*args, **kwargs):
        current = module._modules[name]
        module._modules[name] = stale
        try:
            return original(*args, **kwargs)
        finally:
            module._modules[name] = current

    return forward


def _fused(model: nn.Module) -> None:
    """The projections were fused into one, which is what runs."""
    for layer in model.model.layers:
        own = layer.self_attn
        own.qkv_proj = nn.Linear(32, 64, bias=False)
        parts = (own.q_proj, own.k_proj, own.v_proj)
        own.qkv_proj.weight.data = torch.cat([part.weight.data for part in parts])
        own.forward = _by_fused(own)


def _by_fused(own: nn.Module):
    original = own.forward

    def forward(hidden_states, *args, **kwargs):
        made = dict(
            zip(("q_proj", "k_proj", "v_proj"), own.qkv_proj(hidden_states).split([32, 16, 16], -1),
                strict=True)
        )  # fmt: skip
        kept = {name: own._modules[name] for name in made}
        for name, value in made.items():
            own._modules[name] = _Given(value)
        try:
            return original(hidden_states, *args, **kwargs)
        finally:
            own._modules.update(kept)

    return forward


class _Given(nn.Module):
    def __init__(self, value: torch.Tensor) -> None:
        super().__init__()
        self.value = value

    def forward(self, x):
        return self.value


@pytest.mark.works_with("Trainers", "PEFT: a LoRA on stale projections is seen")
@pytest.mark.parametrize("make_stale", [_held_aside, _fused])
def test_adapters_on_projections_that_nothing_uses_are_seen(make_stale, tmp_path):
    model = make("llama")
    make_stale(model)
    adapted = peft.get_peft_model(model, peft.LoraConfig(r=4, target_modules=["q_proj", "o_proj"]))
    seen = run(adapted, "llama", tmp_path / "t")
    assert "qkv/unmoved" in fired(seen) and "attention/unmoved" not in fired(seen)


@pytest.mark.parametrize("trains", [True, False])
def test_projections_that_were_replaced_after_the_adapters_were_made(trains, tmp_path):
    """New ones that train are in no group; frozen ones leave the optimizer with what is gone."""
    model = peft.get_peft_model(
        make("llama"), peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"])
    )
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    for layer in model.get_base_model().model.layers:
        layer.self_attn.q_proj = nn.Linear(32, 32, bias=False).requires_grad_(trains)
    seen = attached(model, optimizer, tmp_path / "t")
    assert ("training/uncovered" in fired(seen)) == trains
    assert "6 in its groups are of no module of this model" in seen.header.facts["coverage"]


def attached(model: nn.Module, optimizer: torch.optim.Optimizer, trace) -> Seen:
    options = {"endpoint": False, "every": 1, "budget": None, "trace": trace}
    with probe.attach(model, optimizer, **options):
        for _ in range(2):
            model(**batch("llama")).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    return Seen(trace)


class LowRank(nn.Linear):
    """A linear with a term of its own, as hand-written ones have it."""

    def __init__(self, size: int, out: int) -> None:
        super().__init__(size, out)
        self.lora_A = nn.Parameter(torch.randn(4, size))
        self.lora_B = nn.Parameter(torch.randn(out, 4))

    def forward(self, x):
        return super().forward(x) + F.dropout(x, 0.1, self.training) @ self.lora_A.t() @ (
            self.lora_B.t()
        )


class Beside(nn.Module):
    """As in torchtune: the weight and two linears are one module."""

    def __init__(self, size: int, out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out, size) * 0.1)
        self.dropout = nn.Dropout(0.2)
        self.lora_a = nn.Linear(size, 4, bias=False)
        self.lora_b = nn.Linear(4, out, bias=False)
        self.rank, self.alpha, self.disabled = 4, 8.0, False

    def forward(self, x):
        out = F.linear(x, self.weight)
        if self.disabled:
            return out
        return out + (self.alpha / self.rank) * self.lora_b(self.lora_a(self.dropout(x)))


@pytest.mark.parametrize("kind", [LowRank, Beside])
def test_hand_written_adapters(kind, tmp_path):
    model = make("hand-written, SDPA")
    for block in model.transformer.h:
        block.attn.c_attn = kind(32, 96)
        block.mlp.c_fc = kind(32, 128)
    seen = run(model, "hand-written, SDPA", tmp_path / "t")
    assert over(seen) == {}
    errors = seen["qkv@1/q_error"], seen["ffn@1/linear_error"]
    assert np.isnan(errors[0]).all() if kind is LowRank else np.max(errors) < 1e-4
    absent = seen.header.absent
    assert ("not recomputed" in absent.get("qkv/q_error", "")) == (kind is LowRank)
    assert find(model).layers[1].expand is model.transformer.h[1].mlp.c_fc


def test_what_is_inside_an_adapted_linear_has_no_role():
    parts = find(with_lora("bert"))
    layer = parts.layers[0]
    assert type(layer.query).__name__ == "Linear" and hasattr(layer.query, "lora_A")
    assert layer.expand is layer.block.intermediate.dense and layer.strays == []
    assert parts.paths[layer.expand] == "bert.encoder.layer.0.intermediate.dense"
