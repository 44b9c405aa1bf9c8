"""Every operator, on every family it claims: it changes what it says, and leaves no trace."""

from __future__ import annotations

import csv
import math
import random
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
)

import diagnoser
from diagnoser.corpus.models import build
from diagnoser.corpus.recipe import ENCODERS, ROTARY, Recipe, Size
from diagnoser.faults import OPERATORS, Fault, draw, inject, operators_for
from diagnoser.manifest import LINEAGES

LENGTH = 16
VOCABULARY = 64
PAD = 0

# What is sure to differ from the clean model; output where nothing is named.
OBSERVED = {
    "QFG": "gradient",
    "FRG": "update",
    "NWD": "update",
    "RGC": "update",
    "RDR": "training_output",
    "SPD": "training_output",
    "KSB": "kernel",
    "KFT": "kernel",
    "KMC": "kernel",
    "CST": "cached",
    "CDU": "cached",
    "COB": "cached",
    "CTR": "cached",
    "CLK": "cached",
}


def _bert(task: str) -> torch.nn.Module:
    config = BertConfig(
        vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=64, max_position_embeddings=32, num_labels=3, pad_token_id=PAD,
    )  # fmt: skip
    return (BertForMaskedLM if task == "tokens" else BertForSequenceClassification)(config)


def _gpt2(task: str) -> torch.nn.Module:
    config = GPT2Config(
        vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, n_positions=32, num_labels=3,
        pad_token_id=PAD, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    return (GPT2LMHeadModel if task == "tokens" else GPT2ForSequenceClassification)(config)


def _llama(task: str) -> torch.nn.Module:
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, intermediate_size=64, max_position_embeddings=32, num_labels=3,
        pad_token_id=PAD,
    )  # fmt: skip
    return (LlamaForCausalLM if task == "tokens" else LlamaForSequenceClassification)(config)


def _kin(family: str, task: str) -> torch.nn.Module:
    size = Size(2, 32, 4, 2 if family in ROTARY else 4, VOCABULARY)
    text = "mlm_source" if family in ENCODERS else "lm_source"
    return build(Recipe(family, text if task == "tokens" else "which_module", size, seed=1))


FAMILIES = {"bert": _bert, "gpt2": _gpt2, "llama": _llama}
KIN = {name: partial(_kin, name) for name in ("roberta", "mistral", "qwen3")}
BUILDERS = FAMILIES | KIN
CASES = [
    pytest.param(code, family, marks=[pytest.mark.matrix] if family in KIN else [])
    for code, operator in OPERATORS.items()
    for family in BUILDERS
    if LINEAGES.get(family, family) in operator.families
]


def _model(family: str, task: str = "tokens") -> torch.nn.Module:
    torch.manual_seed(0)
    model = BUILDERS[family](task)
    # Larger weights than at initialisation: attention is not uniform, biases are not zero.
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.15 * torch.randn_like(parameter))
    return model


def _batch(family: str, task: str = "tokens") -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(3, VOCABULARY, (4, LENGTH), generator=generator)
    attended = torch.ones_like(ids)
    ids[1, 10:], attended[1, 10:] = PAD, 0
    ids[3, 13:], attended[3, 13:] = PAD, 0
    labels = ids.masked_fill(attended == 0, -100)
    if task == "classes":
        labels = torch.tensor([0, 1, 2, 1])
    return {"input_ids": ids, "attention_mask": attended, "labels": labels}


def _logits(model: torch.nn.Module, family: str) -> torch.Tensor:
    model.eval()
    with torch.no_grad():
        return model(**_batch(family)).logits


def _training_logits(model: torch.nn.Module, family: str) -> torch.Tensor:
    model.train()
    torch.manual_seed(7)
    with torch.no_grad():
        return model(**_batch(family)).logits


def _gradients(model: torch.nn.Module, family: str) -> list[torch.Tensor | None]:
    model.eval()
    model.zero_grad()
    model(**_batch(family)).loss.backward()
    return [None if p.grad is None else p.grad.clone() for p in model.parameters()]


def _cached(model: torch.nn.Module, family: str) -> torch.Tensor:
    """Logits of the last token by decoding the two last tokens with a cache."""
    model.eval()
    ids = _batch(family)["input_ids"][::2]
    with torch.no_grad():
        out = model(ids[:, :-2], use_cache=True)
        for i in (-2, -1):
            token = ids[:, i:] if i == -1 else ids[:, i : i + 1]
            out = model(token, past_key_values=out.past_key_values, use_cache=True)
    return out.logits[:, -1]


class _KernelCalls(TorchFunctionMode):
    """Names the kernel, backend and dtype of every attention call."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple] = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            backend = torch._fused_sdp_choice(*args, **kwargs)
            self.seen.append(("sdpa", backend, args[0].dtype, args[0].shape))
        elif func in (torch.softmax, F.softmax):
            self.seen.append(("softmax", args[0].dtype))
        return func(*args, **kwargs)


def _kernel(model: torch.nn.Module, family: str) -> list[tuple]:
    """Kernel calls, watched from a forward pre-hook of each attention module."""
    watched, handles = _KernelCalls(), []

    def enter(*_) -> None:
        watched.__enter__()

    def leave(*_) -> None:
        watched.__exit__(None, None, None)

    for module in model.modules():
        if hasattr(module, "is_causal") and hasattr(module, "scaling"):
            handles.append(module.register_forward_pre_hook(enter))
            handles.append(module.register_forward_hook(leave))
    _logits(model, family)
    for handle in handles:
        handle.remove()
    return watched.seen


def _different(one, other) -> bool:
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return not torch.equal(one, other)
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        return any(_different(a, b) for a, b in zip(one, other, strict=True))
    return one != other


def _optimizer(model: torch.nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.01)


def _steps(model, optimizer, family, count=2, task="tokens") -> list[torch.Tensor]:
    model.train()
    torch.manual_seed(3)
    for _ in range(count):
        optimizer.zero_grad()
        loss = model(**_batch(family, task)).loss
        loss.backward()
        optimizer.step()
    return [p.detach().clone() for p in model.parameters()]


def _fault(code: str, model: torch.nn.Module, seed: int = 0, **kwargs) -> Fault:
    return draw(model, random.Random(seed), operator=code, length=LENGTH, **kwargs)


def _traces(model: torch.nn.Module) -> dict:
    """Everything a fault could leave behind, but for parameters' values."""
    return {
        name: {key: value for key, value in module.__dict__.items() if key != "training"}
        | {"hooks": (len(module._forward_hooks), len(module._forward_pre_hooks))}
        for name, module in model.named_modules()
    }


def _groups(optimizer: torch.optim.Optimizer) -> list[dict]:
    return [
        {k: ([id(p) for p in v] if k == "params" else v) for k, v in group.items()}
        for group in optimizer.param_groups
    ]


OBSERVE = {
    "output": _logits,
    "training_output": _training_logits,
    "gradient": _gradients,
    "kernel": _kernel,
    "cached": _cached,
}


def _observe(code, model, family, optimizer):
    kind = OBSERVED.get(code, "output")
    if kind == "update":
        return _steps(model, optimizer, family)
    return OBSERVE[kind](model, family)


def _all_faults(code: str, model: torch.nn.Module) -> list[Fault]:
    """A fault for each severity that can be drawn."""
    found = {}
    for seed in range(40):
        fault = _fault(code, model, seed)
        found.setdefault(fault.value, fault)
    return list(found.values())


@pytest.mark.parametrize(("code", "family"), CASES)
def test_operator_acts_and_leaves_no_trace(code: str, family: str) -> None:
    model = _model(family)
    weights = [p.detach().clone() for p in model.parameters()]
    optimizer = _optimizer(model)
    before, groups = _traces(model), _groups(optimizer)
    clean_logits = _logits(model, family)
    twin = _model(family)
    clean = _observe(code, twin, family, _optimizer(twin))
    for fault in _all_faults(code, model):
        with inject(model, optimizer, fault):
            faulty = _observe(code, model, family, optimizer)
        assert _different(clean, faulty), fault
        assert _traces(model) == before
        assert _groups(optimizer) == groups
        assert "step" not in optimizer.__dict__
        if OBSERVED.get(code) == "update":
            with torch.no_grad():
                for parameter, weight in zip(model.parameters(), weights, strict=True):
                    parameter.copy_(weight)
            optimizer.state.clear()
        model.zero_grad()
        assert torch.equal(_logits(model, family), clean_logits), fault


@pytest.mark.parametrize(("code", "family"), CASES)
@pytest.mark.parametrize("task", ["tokens", "classes"])
def test_training_goes_on_under_the_fault(code: str, family: str, task: str) -> None:
    torch.manual_seed(0)
    model = BUILDERS[family](task)
    optimizer = _optimizer(model)
    _steps(model, optimizer, family, 1, task)
    fault = _fault(code, model, seed=5)
    names = [name for name, _ in model.named_parameters()]
    with inject(model, optimizer, fault):
        parameters = _steps(model, optimizer, family, 2, task)
        assert [name for name, _ in model.named_parameters()] == names
        model.eval()
        with torch.no_grad():
            model(**_batch(family, task))
    assert all(torch.isfinite(p).all() for p in parameters), fault
    _steps(model, optimizer, family, 1, task)


@pytest.mark.parametrize("family", FAMILIES)
def test_observations_of_a_clean_model_repeat(family: str) -> None:
    model, twin = _model(family), _model(family)
    for observe in OBSERVE.values():
        if observe is not _cached or family not in ENCODERS:
            assert not _different(observe(model, family), observe(twin, family))
    one, other = (_steps(m, _optimizer(m), family) for m in (model, twin))
    assert not _different(one, other)


def test_catalogue_agrees_with_the_taxonomy() -> None:
    path = Path(diagnoser.__file__).parent / "data" / "taxonomy.csv"
    rows = {row["operator"]: row for row in csv.DictReader(path.open())}
    assert set(OPERATORS) == set(rows)
    for code, operator in OPERATORS.items():
        row = rows[code]
        assert (operator.category, operator.root_cause, operator.scope) == (
            row["category"], row["root_cause"], row["scope"],
        )  # fmt: skip
        assert (operator.parameter or "") == row["parameter"]
        if code != "PTL":
            assert [str(v) for v in operator.values] == row["values"].split()


@pytest.mark.parametrize("family", FAMILIES)
def test_every_category_has_operators_for_every_family(family: str) -> None:
    categories = {operator.category for operator in operators_for(_model(family))}
    expected = {operator.category for operator in OPERATORS.values()}
    assert categories == expected - ({"kv_cache"} if family == "bert" else set())


def test_clean_values_are_never_drawn() -> None:
    bert, llama = _model("bert"), _model("llama")
    drawn = {_fault("FCA", bert, seed).value for seed in range(60)}
    assert drawn == {"ReLU", "Tanh", "Sigmoid"}
    assert {_fault("FCA", llama, s).value for s in range(60)} == {"ReLU", "GELU", "Tanh", "Sigmoid"}
    assert {_fault("KMD", bert, s).value for s in range(60)} == {0.3, 0.5}
    assert {_fault("RDR", bert, s).value for s in range(60)} == {0.3, 0.5}
    assert {_fault("RDR", llama, s).value for s in range(60)} == {0.1, 0.3, 0.5}
    without = torch.optim.AdamW(bert.parameters(), weight_decay=0.0)
    drawn = {_fault("FRG", bert, s, optimizer=without).value for s in range(60)}
    assert drawn == {0.01, 0.1}
    assert {_fault("RGC", bert, s, clip=1.0).value for s in range(60)} == {0.1, 10.0}


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
    model = _model("gpt2")
    assert [draw(model, random.Random(9)) for _ in range(2)] == [draw(model, random.Random(9))] * 2


def test_initialisation_faults_keep_what_training_added() -> None:
    model = _model("llama")
    optimizer = _optimizer(model)
    weight = model.model.layers[0].self_attn.q_proj.weight
    start = weight.detach().clone()
    with inject(model, optimizer, _fault("QZQ", model).__class__("QZQ", "qkv", "x", (0,))):
        assert not weight.any()
        _steps(model, optimizer, "llama")
        learned = weight.detach().clone()
        assert learned.any()
    torch.testing.assert_close(weight.detach(), start + learned)


@pytest.mark.parametrize("scheduled_first", [True, False])
def test_own_weight_decay_works_beside_a_scheduler(scheduled_first: bool) -> None:
    model = _model("bert")
    optimizer = _optimizer(model)
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
            _steps(model, optimizer, "bert", 1)
            scheduler.step()
    _steps(model, optimizer, "bert", 1)
    scheduler.step()
    assert seen == [1.0, 1.0, 0.01]


@pytest.mark.parametrize("loop_clips", [True, False])
def test_clipping_happens_at_the_faults_threshold(loop_clips: bool) -> None:
    model = _model("gpt2")
    optimizer = _optimizer(model)
    norms: list[float] = []

    def watch(opt, *_):
        grads = [p.grad.norm() for p in model.parameters() if p.grad is not None]
        norms.append(float(torch.stack(grads).norm()))

    optimizer.register_step_pre_hook(watch)
    fault = Fault("RGC", "residual", "gradient_clipping", (), "value", 0.1)
    for context in (inject(model, optimizer, fault), nullcontext()):
        with context:
            optimizer.zero_grad()
            model(**_batch("gpt2")).loss.backward()
            if loop_clips:
                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
    assert math.isclose(norms[0], 0.1, rel_tol=1e-3)
    assert norms[1] > 0.5


def test_what_does_not_fit_is_refused_and_changes_nothing() -> None:
    model = _model("bert")
    before = _traces(model)
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
        assert _traces(model) == before
    with pytest.raises(ValueError, match="category=kv_cache"):
        draw(model, random.Random(0), category="kv_cache")
    with pytest.raises(ValueError, match="not into"):
        draw(torch.nn.Linear(2, 2), random.Random(0))
