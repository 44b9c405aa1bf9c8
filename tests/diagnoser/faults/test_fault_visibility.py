"""What an observer with hooks and a function mode sees of a fault: the bug, not the injection."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from diagnoser.faults import Fault, inject

LENGTH = 12


def _gpt2() -> GPT2LMHeadModel:
    torch.manual_seed(0)
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=64,
            n_embd=32,
            n_layer=2,
            n_head=4,
            n_positions=32,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
            initializer_range=0.2,
        )
    ).eval()


def _llama() -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=64,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            intermediate_size=64,
            max_position_embeddings=32,
            pad_token_id=0,
            initializer_range=0.2,
        )
    ).eval()


def _ids(rows: int = 3) -> torch.Tensor:
    return torch.randint(3, 64, (rows, LENGTH), generator=torch.Generator().manual_seed(rows))


class _Calls(TorchFunctionMode):
    def __init__(self) -> None:
        super().__init__()
        self.kernel: list[dict] = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            self.kernel.append({"query": args[0], "key": args[1], "value": args[2], **kwargs})
        return func(*args, **kwargs)


def _kernel_calls(model, attentions, ids: torch.Tensor | None = None) -> list[dict]:
    """Kernel arguments seen by a mode entered in a pre-hook, as an observer would."""
    calls, handles = _Calls(), []

    def enter(*_) -> None:
        calls.__enter__()

    def leave(*_) -> None:
        calls.__exit__(None, None, None)

    for module in attentions:
        handles += [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]
    with torch.no_grad():
        model(_ids() if ids is None else ids)
    for handle in handles:
        handle.remove()
    return calls.kernel


def test_kernel_arguments_are_seen_as_altered() -> None:
    model = _llama()
    attentions = [layer.self_attn for layer in model.model.layers]
    with inject(model, None, Fault("SDS", "score", "normalization", (1,))):
        first, second = _kernel_calls(model, attentions)
    assert (first["scale"], second["scale"]) == (pytest.approx(8**-0.5), 1.0)
    assert attentions[1].scaling == pytest.approx(8**-0.5)
    with inject(model, None, Fault("MZM", "masking", "mask_application", (0,))):
        first, second = _kernel_calls(model, attentions)
    assert (first["is_causal"], first["attn_mask"]) == (False, None)
    assert second["is_causal"]


def test_split_heads_are_seen_at_the_kernel() -> None:
    model = _gpt2()
    attentions = [block.attn for block in model.transformer.h]
    fault = Fault("QHD", "qkv", "dimension", (0,), "split", "half_heads")
    with inject(model, None, fault):
        first, second = _kernel_calls(model, attentions)
    assert first["query"].shape == (3, 2, LENGTH, 16)
    assert first["scale"] == pytest.approx(16**-0.5)
    assert second["query"].shape == (3, 4, LENGTH, 8)


def test_leaked_future_is_the_share_asked_for() -> None:
    model = _gpt2()
    attentions = [block.attn for block in model.transformer.h]
    fault = Fault("MCB", "masking", "dynamic_mask", (0,), "visibility", 0.5, seed=4)
    with inject(model, None, fault):
        mask = _kernel_calls(model, attentions)[0]["attn_mask"]
    visible = mask.expand(LENGTH, LENGTH)
    assert visible.dtype == torch.bool
    assert visible.tril().sum() == LENGTH * (LENGTH + 1) // 2
    future = LENGTH * (LENGTH - 1) // 2
    assert 0.3 < visible.triu(1).sum() / future < 0.7


def test_hooks_on_a_shadowed_submodule_see_the_wrong_input() -> None:
    model = _gpt2()
    names = list(model.state_dict())
    fault = Fault("PSI", "positional", "relative_position", (), "delta", 2)
    with inject(model, None, fault):
        table = model.get_submodule("transformer.wpe")
        assert isinstance(table, torch.nn.Embedding)
        seen: list[torch.Tensor] = []
        handle = table.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
        model(_ids())
        handle.remove()
        assert list(model.state_dict()) == names
    assert seen[0].flatten().tolist() == list(range(2, LENGTH + 2))


def test_rotary_shift_turns_queries_against_keys() -> None:
    """Shifted by delta, a query meets key j as a query delta positions later would."""
    model = _llama()
    attentions = [layer.self_attn for layer in model.model.layers]
    # Equal tokens: queries of the first layer differ by their rotation only.
    same = torch.full((1, LENGTH), 5)
    clean = _kernel_calls(model, attentions, same)[0]
    fault = Fault("PSI", "positional", "relative_position", (), "delta", 4)
    with inject(model, None, fault):
        shifted = _kernel_calls(model, attentions, same)[0]
    torch.testing.assert_close(
        shifted["query"][..., :-4, :], clean["query"][..., 4:, :], atol=1e-5, rtol=1e-4
    )
    torch.testing.assert_close(shifted["key"], clean["key"])


def test_frozen_projections_get_no_gradient_but_stay_registered() -> None:
    model = _gpt2()
    with inject(model, None, Fault("QFG", "qkv", "dynamic_parameter_registration", (0,))):
        model(_ids(), labels=_ids()).loss.backward()
    frozen, free = (block.attn.c_attn.weight for block in model.transformer.h)
    assert frozen.requires_grad and frozen.grad is None
    assert free.grad is not None and model.transformer.wte.weight.grad is not None


def _decode(model, ids: torch.Tensor, attended: torch.Tensor | None) -> torch.Tensor:
    def mask(end: int | None) -> torch.Tensor | None:
        return None if attended is None else attended[:, :end]

    with torch.no_grad():
        out = model(ids[:, :-2], attention_mask=mask(-2), use_cache=True)
        for end in (-1, None):
            token = ids[:, :end][:, -1:]
            cache = out.past_key_values
            out = model(token, attention_mask=mask(end), past_key_values=cache, use_cache=True)
    return out.logits


@pytest.mark.parametrize("make", [_gpt2, _llama])
@pytest.mark.parametrize(
    ("code", "value"),
    [
        ("CST", "all"),
        ("CDU", None),
        ("COB", -1),
        ("COB", 1),
        ("CTR", 8),
        ("CLK", None),
        ("CHS", "keys"),
        ("CHS", "values"),
        ("CRW", None),
        ("CPR", None),
        ("CTL", None),
        ("CRO", None),
    ],
)
def test_cache_faults_act_beside_a_padding_mask(make, code: str, value) -> None:
    model = make()
    ids, attended = _ids(), torch.ones(3, LENGTH, dtype=torch.long)
    attended[1, :3] = 0
    clean = _decode(model, ids, attended)
    with torch.no_grad():
        fresh = model(ids).logits
    with inject(model, None, Fault(code, "kv_cache", "", (0, 1), "x", value)):
        faulty = _decode(model, ids, attended)
        with torch.no_grad():
            assert torch.equal(model(ids).logits, fresh)
    assert torch.isfinite(faulty).all()
    assert not torch.allclose(faulty, clean, atol=1e-4)
    assert torch.equal(_decode(model, ids, attended), clean)


@pytest.mark.parametrize("make", [_gpt2, _llama])
def test_a_lone_request_is_served_the_cache_before_it(make) -> None:
    model = make()
    first, second = _ids(1), _ids(1).flip(1)
    clean = [_decode(model, ids, None) for ids in (first, second)]
    with inject(model, None, Fault("CLK", "kv_cache", "distributed_synchronization", (0, 1))):
        faulty = [_decode(model, ids, None) for ids in (first, second)]
    assert torch.equal(faulty[0], clean[0])
    assert not torch.allclose(faulty[1], clean[1], atol=1e-4)
