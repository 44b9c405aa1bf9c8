"""Residual sums where a norm stands on the branch, or dropout is called as a function."""

from __future__ import annotations

import inspect
import textwrap
import types
from collections.abc import Callable

import numpy as np
import pytest
import torch
import transformers as hf
from family_grid import contract_of, over
from more_models import GPT_LIKE, MORE, OPT, make
from test_more_families import run
from torch import nn

POST_NORM_OPT = "opt, norms after the sums"
FAMILIES = ("gemma2", "olmo2", "opt", "bart", POST_NORM_OPT)


def made(family: str) -> nn.Module:
    if family != POST_NORM_OPT:
        return make(family)
    torch.manual_seed(1)
    return hf.OPTForCausalLM(hf.OPTConfig(**OPT, do_layer_norm_before=False)).train()


def batch(family: str) -> Callable[[], dict]:
    return GPT_LIKE if family == POST_NORM_OPT else MORE[family].batch


def last_blocks(model: nn.Module) -> nn.ModuleList:
    """The blocks of the last stack."""
    return next(m for n, m in reversed(list(model.named_modules())) if n.endswith("layers"))


def rewritten(change: Callable[[str], str]) -> Callable[[nn.Module, object], None]:
    """A fault: block 1 of the last stack runs its own code, changed."""

    def fault(model: nn.Module, optimizer: object) -> None:
        block = last_blocks(model)[1]
        source = textwrap.dedent(inspect.getsource(type(block).forward))
        source = source[source.index("def forward") :]
        changed = change(source)
        assert changed != source
        names: dict = {}
        module = inspect.getmodule(type(block))
        exec("from __future__ import annotations\n" + changed, vars(module) | names, names)
        block.forward = types.MethodType(names["forward"], block)

    return fault


SUM = "residual + hidden_states"
FAULTS = {
    "the first skip left out": (lambda s: s.replace(SUM, "hidden_states", 1), "attention"),
    "the last skip left out": (lambda s: "hidden_states".join(s.rsplit(SUM, 1)), "ffn"),
    "a branch counted twice": (
        lambda s: s.replace(SUM, "residual + 2.0 * hidden_states", 1), "attention"
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize(
    "family", [pytest.param(f, marks=pytest.mark.matrix if "," in f else ()) for f in FAMILIES]
)
def test_a_sum_made_otherwise_is_seen(family, fault, tmp_path):
    change, node = FAULTS[fault]
    seen = run(made(family), batch(family), tmp_path / "t", rewritten(change))
    stack = "decoder." if family == "bart" else ""
    found = over(seen)
    key = f"{stack}residual_{node}@1"
    assert f"{key}/sum_error" in found
    if "skip" in fault:
        assert found[f"{key}/skip_gain"] < -0.9
    else:
        assert found[f"{key}/branch_gain"] == pytest.approx(1.0, abs=0.1)
    sums = {k for k in found if contract_of(k).startswith("residual")}
    assert all(k.startswith(key) for k in sums), sums


def test_a_rate_that_is_not_the_stated_one_is_seen(tmp_path):
    def fault(model: nn.Module, optimizer: object) -> None:
        last_blocks(model)[1].dropout = 0.4

    found = over(run(made("bart"), batch("bart"), tmp_path / "t", fault))
    keys = {f"decoder.residual_{node}@1/dropout_gap" for node in ("attention", "cross", "ffn")}
    assert set(found) == keys
    assert all(found[key] == pytest.approx(0.3, abs=0.05) for key in keys)


def test_a_sum_kept_in_16_bits_drops_nothing(tmp_path):
    """What it rounds away of a small branch was not left out by dropout."""
    rounding = rewritten(lambda s: s.replace(SUM, f"({SUM}).bfloat16().float()"))
    seen = run(made("olmo2"), batch("olmo2"), tmp_path / "t", rounding)
    for node in ("residual_attention@1", "residual_ffn@1"):
        assert f"{node}/sum_error" in over(seen)
        assert (seen[f"{node}/dropout_gap"] == 0.0).all()


@pytest.mark.matrix
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("how", ["autocast", "weights", "float32"])
def test_healthy_sums_are_within_rounding(family, how, tmp_path):
    model = made(family)
    if how == "weights":
        model = model.to(torch.bfloat16)
    with torch.autocast(
        "cpu", dtype=torch.bfloat16, enabled=how == "autocast", cache_enabled=False
    ):
        seen = run(model, batch(family), tmp_path / "t")
    assert over(seen) == {}
    stack = "decoder." if family == "bart" else ""
    for node in ("residual_attention@0", "residual_ffn@1"):
        assert (seen[f"{stack}{node}/sum_error"] < (1e-5 if how == "float32" else 5e-3)).all()
        assert not np.isnan(seen[f"{stack}{node}/skip_gain"]).any()
