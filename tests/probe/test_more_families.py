"""Further families: attached without a word, sites found, healthy within tolerance, faults seen."""

from __future__ import annotations

from collections.abc import Callable

import family_models
import numpy as np
import pytest
import torch
import transformers as hf
from block_faults import norm_output
from family_grid import contract_of, over
from fault_target import Target, out_of, target
from mask_faults import mask_dropped, mask_hides_more
from more_models import GPT_LIKE, MORE, make, step
from tiny_models import Seen
from torch import nn

import probe

STEPS = 4


def run(
    model: nn.Module,
    batch: Callable[[], dict],
    trace,
    fault: Callable[[nn.Module, torch.optim.Optimizer], None] | None = None,
) -> Seen:
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-3)
    if fault is not None:
        fault(model, optimizer)
    torch.manual_seed(7)
    options = {"endpoint": False, "every": 1, "budget": None, "trace": trace}
    with probe.attach(model, optimizer, **options) as p:
        for _ in range(STEPS):
            loss = step(model, batch())
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            p.log(loss=loss)
    seen = Seen(trace)
    said = {r.kind for r in seen.records if hasattr(r, "kind") and hasattr(r, "text")}
    assert said <= {"attached"}
    return seen


@pytest.mark.works_with("Model families")
@pytest.mark.parametrize("family", MORE)
def test_sites_are_found_and_nothing_fires(family, tmp_path):
    kind = MORE[family]
    seen = run(make(family), kind.batch, tmp_path / "t")
    anatomy = seen.header.anatomy
    assert anatomy.layers == 3 * len(kind.stacks) and anatomy.norm_order == kind.order
    assert len(seen.frames) == STEPS
    names = {site.name for site in anatomy.sites}
    for stack in kind.stacks:
        at = f"{stack}." if stack else ""
        for node in ("qkv", "score", "mask", "attention", "norm_attention", "ffn"):
            assert f"{at}{node}@2" in names
        for known in ("qkv@1/v_error", "qkv@1/q_error", "mask@1/hidden",
                      "norm_attention@1/formula_error", "attention@1/reaches_output"):  # fmt: skip
            assert np.isnan(seen[at + known]).any() == (stack == kind.packed != ""), known
        for node in ("residual_attention@1", "residual_ffn@2"):
            errors = seen[f"{at}{node}/sum_error"]
            assert (
                np.isnan(errors).all()
                if stack == kind.packed != "" or kind.parallel
                else (errors < 1e-5).all()
            )
    assert over(seen) == {}


def _all_three(model: nn.Module, optimizer: torch.optim.Optimizer, family: str) -> None:
    torch.manual_seed(0)
    given = MORE[family].batch()
    given = {k: v for k, v in given.items() if "tokens" not in given or k != "targets"}
    at: Target = target(model, given, optimizer)
    (mask_hides_more if family == "vit" else mask_dropped)(at)
    out_of(at.layer.value or at.layer.fused, lambda out: out * 1.3)
    if at.layer.norm_ffn is None:
        at.layer.norm_ffn = at.layer.norm_attention
    norm_output(at)


@pytest.mark.matrix
@pytest.mark.works_with("Model families")
@pytest.mark.parametrize("family", MORE)
def test_a_mask_a_projection_and_a_norm_fault_are_seen(family, tmp_path):
    def fault(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        _all_three(model, optimizer, family)

    keys = over(run(make(family), MORE[family].batch, tmp_path / "t", fault))
    found = {contract_of(key) for key in keys}
    assert ("mask/hidden" if family == "vit" else "mask/leaked") in found
    assert "qkv/v_error" in found
    assert found & {"norm_ffn/formula_error", "norm_attention/formula_error"}
    # Where layers share one module, the fault is in all of them.
    where = {key.partition("/")[0][-1] for key in keys if contract_of(key) == "qkv/v_error"}
    assert where == ({"0", "1", "2"} if family == "albert" else {"1"})


@pytest.mark.parametrize("family", ["deberta", "mixtral", "whisper", "llava"])
def test_results_are_the_same_bit_for_bit(family, tmp_path):
    def trained(watched: bool) -> tuple[list[torch.Tensor], torch.Tensor]:
        model = make(family)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        torch.manual_seed(7)
        options = {"endpoint": False, "every": 1, "budget": None, "trace": tmp_path / "t"}
        watching = probe.attach(model, optimizer, **options) if watched else None
        for _ in range(3):
            step(model, MORE[family].batch()).backward()
            optimizer.step()
            optimizer.zero_grad()
        if watching is not None:
            watching.close()
        return list(model.parameters()), torch.get_rng_state()

    (plain, rng), (seen, rng_seen) = trained(False), trained(True)
    assert torch.equal(rng, rng_seen) and torch._C._len_torch_function_stack() == 0
    assert all(torch.equal(a, b) for a, b in zip(plain, seen, strict=True))


@pytest.mark.works_with("Model families", "mamba (norms, stream and output are read)")
def test_a_model_without_attention_offers_what_there_is(tmp_path):
    torch.manual_seed(1)
    config = hf.MambaConfig(
        vocab_size=100, hidden_size=32, num_hidden_layers=3, state_size=8, time_step_rank=4
    )
    seen = run(hf.MambaForCausalLM(config).train(), GPT_LIKE, tmp_path / "t")
    nodes = {site.node for site in seen.header.anatomy.sites}
    assert not nodes & {"qkv", "score", "mask", "attention", "ffn", "kv_cache"}
    assert not np.isnan(seen["norm_attention@2/formula_error"]).any()
    assert not np.isnan(seen["output/loss_error"]).any() and over(seen) == {}


EAGER = (
    "opt", "gpt_neo", "bloom", "gemma2", "gemma3", "phi3", "mixtral", "modernbert", "deberta",
    "bart", "gpt_neox", "falcon", "vit", "llava",
)  # fmt: skip


@pytest.mark.matrix
@pytest.mark.parametrize("family", EAGER)
def test_nothing_fires_where_softmax_runs_by_hand(family, tmp_path):
    model = make(family)
    model.set_attn_implementation("eager")
    assert over(run(model, MORE[family].batch, tmp_path / "t")) == {}


TEXT = [name for name, kind in MORE.items() if getattr(kind.batch, "func", None) is not None]


@pytest.mark.matrix
@pytest.mark.parametrize("family", [n for n in TEXT if not n.startswith("torcht")])
def test_nothing_fires_with_padding_on_the_left(family, tmp_path):
    shape = MORE[family].batch.args[0] if MORE[family].batch.args else "gpt2"

    def batch():
        given = family_models.batch(shape, "left")
        if family != "gpt_neo":  # the only one of these whose positions count the padding
            given.pop("position_ids", None)
        return given

    assert over(run(make(family), batch, tmp_path / "t")) == {}
