"""Small models of the families faults act on, what can be observed of them, and two checks."""

from __future__ import annotations

import random
from functools import partial

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

from diagnoser.corpus.models import build
from diagnoser.corpus.recipe import ENCODERS, ROTARY, Recipe, Size
from diagnoser.faults import Fault, draw, inject

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
    "MST": "second_batch",
    "QLO": "update",
    "KFM": "kernel",
    "KHD": "kernel",
    "KND": "training_output",
    "CHS": "cached",
    "CRW": "cached",
    "CPR": "cached",
    "CTL": "cached",
    "CRO": "cached",
    "FLP": "update",
    "NLP": "update",
    "RDC": "gradient",
    "RGV": "update",
    "RDP": "training_output",
    "OST": "gradient",
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


def model_of(family: str, task: str = "tokens") -> torch.nn.Module:
    torch.manual_seed(0)
    model = BUILDERS[family](task)
    # Larger weights than at initialisation: attention is not uniform, biases are not zero.
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.15 * torch.randn_like(parameter))
    return model


def batch(family: str, task: str = "tokens") -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(3, VOCABULARY, (4, LENGTH), generator=generator)
    attended = torch.ones_like(ids)
    ids[1, 10:], attended[1, 10:] = PAD, 0
    ids[3, 13:], attended[3, 13:] = PAD, 0
    labels = ids.masked_fill(attended == 0, -100)
    if task == "classes":
        labels = torch.tensor([0, 1, 2, 1])
    return {"input_ids": ids, "attention_mask": attended, "labels": labels}


def logits(model: torch.nn.Module, family: str) -> torch.Tensor:
    model.eval()
    with torch.no_grad():
        return model(**batch(family)).logits


def training_logits(model: torch.nn.Module, family: str) -> torch.Tensor:
    model.train()
    torch.manual_seed(7)
    with torch.no_grad():
        return model(**batch(family)).logits


def gradients(model: torch.nn.Module, family: str) -> list[torch.Tensor | None]:
    model.eval()
    model.zero_grad()
    model(**batch(family)).loss.backward()
    return [None if p.grad is None else p.grad.clone() for p in model.parameters()]


def cached(model: torch.nn.Module, family: str) -> torch.Tensor:
    """Logits of the last token by decoding the two last tokens with a cache."""
    model.eval()
    ids = batch(family)["input_ids"][::2]
    with torch.no_grad():
        out = model(ids[:, :-2], use_cache=True)
        for i in (-2, -1):
            token = ids[:, i:] if i == -1 else ids[:, i : i + 1]
            out = model(token, past_key_values=out.past_key_values, use_cache=True)
    return out.logits[:, -1]


def second_batch(model: torch.nn.Module, family: str) -> torch.Tensor:
    """Logits of a batch whose rows are padded otherwise than the one before it."""
    logits(model, family)
    with torch.no_grad():
        rolled = {name: rows.roll(1, 0) for name, rows in batch(family).items()}
        return model(**rolled).logits


class KernelCalls(TorchFunctionMode):
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


def kernel(model: torch.nn.Module, family: str) -> list[tuple]:
    """Kernel calls, watched from a forward pre-hook of each attention module."""
    watched, handles = KernelCalls(), []

    def enter(*_) -> None:
        watched.__enter__()

    def leave(*_) -> None:
        watched.__exit__(None, None, None)

    for module in model.modules():
        if hasattr(module, "is_causal") and hasattr(module, "scaling"):
            handles.append(module.register_forward_pre_hook(enter))
            handles.append(module.register_forward_hook(leave))
    logits(model, family)
    for handle in handles:
        handle.remove()
    return watched.seen


def different(one, other) -> bool:
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return not torch.equal(one, other)
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        return any(different(a, b) for a, b in zip(one, other, strict=True))
    return one != other


def optimizer_of(model: torch.nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.01)


def steps(model, optimizer, family, count=2, task="tokens") -> list[torch.Tensor]:
    model.train()
    torch.manual_seed(3)
    for _ in range(count):
        optimizer.zero_grad()
        loss = model(**batch(family, task)).loss
        loss.backward()
        optimizer.step()
    return [p.detach().clone() for p in model.parameters()]


def fault_for(code: str, model: torch.nn.Module, seed: int = 0, **kwargs) -> Fault:
    return draw(model, random.Random(seed), operator=code, length=LENGTH, **kwargs)


def traces(model: torch.nn.Module) -> dict:
    """Everything a fault could leave behind, but for parameters' values."""
    return {
        name: {key: value for key, value in module.__dict__.items() if key != "training"}
        | {"hooks": (len(module._forward_hooks), len(module._forward_pre_hooks))}
        for name, module in model.named_modules()
    }


def groups_of(optimizer: torch.optim.Optimizer) -> list[dict]:
    return [
        {k: ([id(p) for p in v] if k == "params" else v) for k, v in group.items()}
        for group in optimizer.param_groups
    ]


OBSERVE = {
    "output": logits,
    "training_output": training_logits,
    "gradient": gradients,
    "kernel": kernel,
    "cached": cached,
    "second_batch": second_batch,
}


def observe(code, model, family, optimizer):
    kind = OBSERVED.get(code, "output")
    if kind == "update":
        return steps(model, optimizer, family)
    return OBSERVE[kind](model, family)


def all_faults(code: str, model: torch.nn.Module) -> list[Fault]:
    """A fault for each severity that can be drawn."""
    found = {}
    for seed in range(40):
        fault = fault_for(code, model, seed)
        found.setdefault(fault.value, fault)
    return list(found.values())


def acts_and_leaves_no_trace(code: str, family: str) -> None:
    """Every severity changes what it says; afterwards all is as it was."""
    model = model_of(family)
    weights = [p.detach().clone() for p in model.parameters()]
    optimizer = optimizer_of(model)
    before, groups = traces(model), groups_of(optimizer)
    clean_logits = logits(model, family)
    twin = model_of(family)
    clean = observe(code, twin, family, optimizer_of(twin))
    for fault in all_faults(code, model):
        with inject(model, optimizer, fault):
            faulty = observe(code, model, family, optimizer)
        assert different(clean, faulty), fault
        assert traces(model) == before
        assert groups_of(optimizer) == groups
        assert "step" not in optimizer.__dict__
        if OBSERVED.get(code) == "update":
            with torch.no_grad():
                for parameter, weight in zip(model.parameters(), weights, strict=True):
                    parameter.copy_(weight)
            optimizer.state.clear()
        model.zero_grad()
        assert torch.equal(logits(model, family), clean_logits), fault


def trains_under_the_fault(code: str, family: str, task: str) -> None:
    """Two steps under the fault and one after it: parameters stay finite, names the same."""
    torch.manual_seed(0)
    model = BUILDERS[family](task)
    optimizer = optimizer_of(model)
    steps(model, optimizer, family, 1, task)
    fault = fault_for(code, model, seed=5)
    names = [name for name, _ in model.named_parameters()]
    with inject(model, optimizer, fault):
        parameters = steps(model, optimizer, family, 2, task)
        assert [name for name, _ in model.named_parameters()] == names
        model.eval()
        with torch.no_grad():
            model(**batch(family, task))
    assert all(torch.isfinite(p).all() for p in parameters), fault
    steps(model, optimizer, family, 1, task)
