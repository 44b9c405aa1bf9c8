"""Counterfactual contracts hold on every healthy family and break for faults made for them."""

from __future__ import annotations

import pytest
import torch
from effect_faults import MADE_FOR
from effect_grid import broken, captured, fires, given_to, measured
from family_models import FAMILIES, PACKED, WITHOUT_MASK, make
from torch import nn

from probe.absence import Seen
from probe.counterfactual import Counterfactuals, due, why_not
from probe.measure import effects
from probe.rerun import why_never
from probe.reruns import foreseen


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


CAUSAL = ("gpt2", "gpt2, LoRA", "llama", "llama, LoRA", "mistral", "qwen3", "t5", *WITHOUT_MASK)


@pytest.mark.parametrize("family", FAMILIES)
def test_all_hold_on_a_healthy_model(family):
    for padding in ("right",) if family in WITHOUT_MASK else ("right", "left", "none"):
        values = measured(*captured(make(family, 0.1), given_to(family, padding)))
        assert broken(values) == {}
        known = {"batch_effect", "position_effect", "context_effect"}
        known |= {"position_missing", "context_missing"}
        known |= {"future_effect"} if family in CAUSAL else set()
        if family not in WITHOUT_MASK and padding != "none":
            known |= {"padding_effect"} | ({"trim_effect"} if padding == "right" else set())
        assert set(values) == known, padding
        assert values["position_effect"] > 1e-4 and values["context_effect"] > 1e-4


@pytest.mark.parametrize("family", PACKED)
def test_all_hold_on_a_packed_batch(family):
    values = measured(*captured(make(family, 0.1), given_to(family, "none", packed=True)))
    assert broken(values) == {} and "packing_effect" in values


def test_a_packed_batch_with_a_mask_does_leak():
    """transformers tells documents apart by position ids only where no mask is given."""
    given = given_to("llama", "none", packed=True)
    given["attention_mask"] = torch.ones_like(given["input_ids"])
    values = measured(*captured(make("llama"), given))
    assert set(broken(values)) == {"packing_effect"}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_16_bits_tell_what_must_not_matter_only(dtype):
    values = measured(*captured(make("bert", 0.1).to(dtype), given_to("bert")))
    assert set(values) == {"padding_effect", "batch_effect", "trim_effect"}
    assert max(values.values()) < 2e-2


def test_a_model_that_switches_autocast_on_by_itself_tells_only_what_must_not_matter():
    """As accelerate's mixed precision does, around the forward."""
    model = make("bert", 0.1)
    parts, capture = captured(model, given_to("bert"))
    original = model.forward

    def forward(*args, **kwargs):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return original(*args, **kwargs)

    model.forward = forward
    values = measured(parts, capture)
    assert set(values) == {"padding_effect", "batch_effect", "trim_effect"}
    assert max(values.values()) < 2e-2


CASES = [
    (family, metric, fault)
    for metric, faults in MADE_FOR.items()
    for fault, families in faults
    for family in families
]


@pytest.mark.parametrize(
    ("family", "metric", "fault"), CASES, ids=[f"{f}-{m}-{x.__name__}" for f, m, x in CASES]
)
def test_a_contract_breaks_for_the_fault_made_for_it(family, metric, fault):
    assert fires(family, metric, fault)


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_never_measured_has_a_reason(family):
    parts, capture = captured(make(family, 0.1), given_to(family))
    seen, known = foreseen(parts, capture, Seen())
    possible = {name for name, v in known.items() if float(v) == 1.0}
    assert possible == set(measured(parts, capture))
    assert all(seen.effects[m.name] for m in effects.METRICS if m.name not in possible)


def test_a_model_that_begins_with_zeros_misses_nothing():
    model = make("gpt2")
    for block in model.transformer.h:
        nn.init.zeros_(block.attn.c_proj.weight)
    values = measured(*captured(model, given_to("gpt2")), ("context", "position"))
    assert set(values) == {"position_effect", "position_missing"} and not broken(values)
    nn.init.zeros_(model.lm_head.weight)  # tied: tokens are all alike as well
    assert measured(*captured(model, given_to("gpt2")), ("context", "position")) == {}


def test_one_kind_at_a_time_in_turn():
    assert [due(n, ("a", "b", "c")) for n in range(8)] == [
        None, "a", None, "b", None, "c", None, "a",
    ]  # fmt: skip
    assert due(3, ()) is None


# -- models that cannot be run again ---------------------------------------------------------------


@pytest.mark.parametrize("source", ["torch", "random", "numpy"])
def test_a_model_that_draws_random_numbers_is_run_no_more(source):
    import random

    import numpy as np

    parts, capture = captured(make("bert"), given_to("bert"))
    draws = {"torch": lambda: torch.rand(()), "random": random.random, "numpy": np.random.rand}
    # The number has no effect: it might have one the next time.
    parts.layers[0].block.register_forward_hook(lambda *_: draws[source]() and None)
    own = Counterfactuals()
    kept = own.keep(parts, capture, 1)
    with pytest.raises(Exception, match="random numbers") as raised:
        effects.measure(parts, kept)
    own.give_up(kept.kind, raised.value)
    assert len(own.told()) == 1 and own.told() == []
    assert own.keep(parts, capture, 3) is None


def test_a_generator_of_its_own_shows_in_the_second_run():
    parts, capture = captured(make("bert"), given_to("bert"))
    own = torch.Generator()

    def noise(module, args, out):
        return out + 0.1 * torch.randn(out.shape, generator=own)

    parts.token_embedding.register_forward_hook(noise)
    assert measured(parts, capture) == {}


def test_batch_statistics_and_limited_experts_mix_by_design():
    model = make("bert")
    model.extra = nn.BatchNorm1d(4)
    parts, capture = captured(model, given_to("bert"))
    assert set(measured(parts, capture)) == {
        "position_effect", "position_missing", "context_effect", "context_missing",
    }  # fmt: skip
    assert "by design" in why_not("batch", parts, capture)


class FSDPLinear(nn.Linear):
    """Named as sharded modules are."""


def test_models_that_must_not_run_alone(monkeypatch):
    assert why_never(make("bert")) == ""
    sharded = make("bert")
    sharded.extra = FSDPLinear(2, 2)
    assert "sharded" in why_never(sharded)
    assert "device" in why_never(nn.Linear(2, 2, device="meta"))
    renormed = nn.Sequential(nn.Embedding(4, 4, max_norm=1.0))
    assert "max_norm" in why_never(renormed)
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert why_never(make("bert")) == ""
    assert "other ranks" in why_never(make("hand-written, SDPA"))


def test_arguments_that_cannot_be_cut_are_left_alone():
    parts, capture = captured(make("gpt2"), given_to("gpt2"))
    capture.batch.kwargs["past_key_values"] = object()
    assert "arguments" in why_not("padding", parts, capture)
    square = {"input_ids": torch.randint(5, 90, (8, 8))}
    assert "as long" in why_not("batch", *captured(make("gpt2"), square))
