"""The 52 operators, on every family they claim: each changes what it says, and leaves no trace."""

from __future__ import annotations

import csv
import math
import random
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from fault_observations import (
    BUILDERS,
    FAMILIES,
    KIN,
    OBSERVE,
    acts_and_leaves_no_trace,
    batch,
    cached,
    different,
    fault_for,
    model_of,
    optimizer_of,
    steps,
    traces,
    trains_under_the_fault,
)
from transformers import BertConfig, BertForMaskedLM

import diagnoser
from diagnoser.corpus.recipe import ENCODERS
from diagnoser.faults import OPERATORS, Fault, draw, inject, operators_for
from diagnoser.manifest import LINEAGES

TAXONOMY = {code: operator for code, operator in OPERATORS.items() if not operator.beyond}
CASES = [
    pytest.param(code, family, marks=[pytest.mark.matrix] if family in KIN else [])
    for code, operator in TAXONOMY.items()
    for family in BUILDERS
    if LINEAGES.get(family, family) in operator.families
]


@pytest.mark.parametrize(("code", "family"), CASES)
def test_operator_acts_and_leaves_no_trace(code: str, family: str) -> None:
    acts_and_leaves_no_trace(code, family)


@pytest.mark.parametrize(("code", "family"), CASES)
@pytest.mark.parametrize("task", ["tokens", "classes"])
def test_training_goes_on_under_the_fault(code: str, family: str, task: str) -> None:
    trains_under_the_fault(code, family, task)


@pytest.mark.parametrize("family", FAMILIES)
def test_observations_of_a_clean_model_repeat(family: str) -> None:
    model, twin = model_of(family), model_of(family)
    for observe in OBSERVE.values():
        if observe is not cached or family not in ENCODERS:
            assert not different(observe(model, family), observe(twin, family))
    one, other = (steps(m, optimizer_of(m), family) for m in (model, twin))
    assert not different(one, other)


def test_catalogue_agrees_with_the_taxonomy() -> None:
    path = Path(diagnoser.__file__).parent / "data" / "taxonomy.csv"
    rows = {row["operator"]: row for row in csv.DictReader(path.open())}
    assert set(TAXONOMY) == set(rows)
    for code, operator in TAXONOMY.items():
        row = rows[code]
        assert (operator.category, operator.root_cause, operator.scope) == (
            row["category"], row["root_cause"], row["scope"],
        )  # fmt: skip
        assert (operator.parameter or "") == row["parameter"]
        if code != "PTL":
            assert [str(v) for v in operator.values] == row["values"].split()


@pytest.mark.parametrize("family", FAMILIES)
def test_every_category_has_operators_for_every_family(family: str) -> None:
    categories = {operator.category for operator in operators_for(model_of(family))}
    expected = {operator.category for operator in OPERATORS.values()}
    assert categories == expected - ({"kv_cache"} if family == "bert" else set())


def test_clean_values_are_never_drawn() -> None:
    bert, llama = model_of("bert"), model_of("llama")
    drawn = {fault_for("FCA", bert, seed).value for seed in range(60)}
    assert drawn == {"ReLU", "Tanh", "Sigmoid"}
    assert {fault_for("FCA", llama, s).value for s in range(60)} == {
        "ReLU",
        "GELU",
        "Tanh",
        "Sigmoid",
    }
    assert {fault_for("KMD", bert, s).value for s in range(60)} == {0.3, 0.5}
    assert {fault_for("RDR", bert, s).value for s in range(60)} == {0.3, 0.5}
    assert {fault_for("RDR", llama, s).value for s in range(60)} == {0.1, 0.3, 0.5}
    without = torch.optim.AdamW(bert.parameters(), weight_decay=0.0)
    drawn = {fault_for("FRG", bert, s, optimizer=without).value for s in range(60)}
    assert drawn == {0.01, 0.1}
    assert {fault_for("RGC", bert, s, clip=1.0).value for s in range(60)} == {0.1, 10.0}
    assert {fault_for("RGC", bert, s, clip=None).value for s in range(60)} == {0.1}


def test_layers_are_drawn_as_one_some_or_all() -> None:
    config = BertConfig(
        vocab_size=8, hidden_size=8, num_hidden_layers=6, num_attention_heads=2,
        intermediate_size=8, max_position_embeddings=8,
    )  # fmt: skip
    model = BertForMaskedLM(config)
    rng = random.Random(0)
    counts = [len(draw(model, rng, operator="MZM").layers) for _ in range(600)]
    assert 0.42 < counts.count(1) / 600 < 0.58
    assert 0.26 < counts.count(6) / 600 < 0.41
    assert any(1 < count < 6 for count in counts)


def test_the_same_seed_draws_the_same_fault() -> None:
    model = model_of("gpt2")
    assert [draw(model, random.Random(9)) for _ in range(2)] == [draw(model, random.Random(9))] * 2


def test_initialisation_faults_keep_what_training_added() -> None:
    model = model_of("llama")
    optimizer = optimizer_of(model)
    weight = model.model.layers[0].self_attn.q_proj.weight
    start = weight.detach().clone()
    with inject(model, optimizer, fault_for("QZQ", model).__class__("QZQ", "qkv", "x", (0,))):
        assert not weight.any()
        steps(model, optimizer, "llama")
        learned = weight.detach().clone()
        assert learned.any()
    torch.testing.assert_close(weight.detach(), start + learned)


@pytest.mark.parametrize("scheduled_first", [True, False])
def test_own_weight_decay_works_beside_a_scheduler(scheduled_first: bool) -> None:
    model = model_of("bert")
    optimizer = optimizer_of(model)
    norm = model.bert.encoder.layer[0].output.LayerNorm.weight
    seen: list[float] = []

    def watch(opt, *_):
        seen.extend(g["weight_decay"] for g in opt.param_groups for p in g["params"] if p is norm)

    optimizer.register_step_pre_hook(watch)

    def schedule():
        return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (step + 1))

    scheduler = schedule() if scheduled_first else None
    fault = Fault("NWD", "layernorm", "regularization", (0,), "coefficient", 1.0)
    with inject(model, optimizer, fault):
        scheduler = scheduler or schedule()
        for _ in range(2):
            steps(model, optimizer, "bert", 1)
            scheduler.step()
    steps(model, optimizer, "bert", 1)
    scheduler.step()
    assert seen == [1.0, 1.0, 0.01]


@pytest.mark.parametrize("loop_clips", [True, False])
def test_clipping_happens_at_the_faults_threshold(loop_clips: bool) -> None:
    model = model_of("gpt2")
    optimizer = optimizer_of(model)
    norms: list[float] = []

    def watch(opt, *_):
        grads = [p.grad.norm() for p in model.parameters() if p.grad is not None]
        norms.append(float(torch.stack(grads).norm()))

    optimizer.register_step_pre_hook(watch)
    fault = Fault("RGC", "residual", "gradient_clipping", (), "value", 0.1)
    for context in (inject(model, optimizer, fault), nullcontext()):
        with context:
            optimizer.zero_grad()
            model(**batch("gpt2")).loss.backward()
            if loop_clips:
                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
    assert math.isclose(norms[0], 0.1, rel_tol=1e-3)
    assert norms[1] > 0.5


def test_what_does_not_fit_is_refused_and_changes_nothing() -> None:
    model = model_of("bert")
    before = traces(model)
    wrong = [
        (Fault("XXX", "masking", "mask_application"), "no operator"),
        (Fault("CST", "kv_cache", "cache_invalidation", (0,), "layers", "first"), "does not act"),
        (Fault("MZM", "masking", "mask_application"), "needs the layers"),
        (Fault("MZM", "masking", "mask_application", (5,)), "of 2 layers"),
        (Fault("FSW", "ffn", "weight_scaling", (0,)), "needs a value"),
        (Fault("RGC", "residual", "gradient_clipping", (), "value", 0.1), "pass it to inject"),
    ]
    for fault, message in wrong:
        with pytest.raises(ValueError, match=message), inject(model, None, fault):
            pass
        assert traces(model) == before
    with pytest.raises(ValueError, match="category=kv_cache"):
        draw(model, random.Random(0), category="kv_cache")
    with pytest.raises(ValueError, match="not into"):
        draw(torch.nn.Linear(2, 2), random.Random(0))
