"""What each way beyond the 52 does, seen where it does it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from fault_observations import LENGTH, batch, model_of, optimizer_of, steps
from torch.overrides import TorchFunctionMode

from diagnoser.faults import OPERATORS, Fault, inject


def _fault(code: str, value: str | float | None = None, seed: int = 0) -> Fault:
    operator = OPERATORS[code]
    layers = (0,) if operator.layered else ()
    return Fault(
        code, operator.category, operator.root_cause, layers, operator.parameter, value, seed
    )


class _Calls(TorchFunctionMode):
    """The arguments of every kernel call."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[dict] = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            names = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")
            self.seen.append(dict(zip(names, args, strict=False)) | kwargs)
        return func(*args, **kwargs)


def _calls(model, fault: Fault, *batches: dict, training: bool = False) -> list[dict]:
    """Kernel calls of the faulty layer (the first) for the batches."""
    attention = next(m for m in model.modules() if hasattr(m, "scaling"))
    calls, handles = _Calls(), []
    handles.append(attention.register_forward_pre_hook(lambda *_: calls.__enter__() and None))
    handles.append(attention.register_forward_hook(lambda *_: calls.__exit__(None, None, None)))
    model.train(training)
    with inject(model, optimizer_of(model), fault), torch.no_grad():
        for given in batches:
            model(**given)
    for handle in handles:
        handle.remove()
    return calls.seen


def _full() -> dict[str, torch.Tensor]:
    """Rows without padding."""
    ids = torch.randint(3, 64, (3, LENGTH), generator=torch.Generator().manual_seed(5))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def _visible(call: dict) -> torch.Tensor:
    mask = call["attn_mask"]
    return mask if mask.dtype == torch.bool else mask > torch.finfo(mask.dtype).min / 2


def _pattern(change: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    places = torch.arange(LENGTH)
    return change(places.unsqueeze(-1) - places)


@pytest.mark.parametrize(
    ("code", "value", "expected"),
    [
        ("MDO", 2, lambda distance: distance >= -2),
        ("MSD", "strict_diagonal", lambda distance: distance > 0),
        ("VWN", 4, lambda distance: (distance >= 0) & (distance < 4)),
    ],
)
def test_causal_masks_have_the_shape_they_should_not(code, value, expected) -> None:
    (call,) = _calls(model_of("gpt2"), _fault(code, value), _full())
    assert torch.equal(_visible(call).expand(1, 1, LENGTH, LENGTH)[0, 0], _pattern(expected))


def test_masks_of_padded_batches() -> None:
    real = batch("bert")["attention_mask"].bool()
    given = batch("bert")
    (call,) = _calls(model_of("bert"), _fault("MSD", "other_side"), given)
    assert torch.equal(_visible(call)[:, 0, 3], real.flip(-1))
    (call,) = _calls(model_of("bert"), _fault("MRA"), given)
    assert torch.equal(call["attn_mask"][:, 0, 3], real.float())
    (call,) = _calls(model_of("bert"), _fault("VPX", 0.25), _full())
    expected = _pattern(lambda distance: distance >= 0) | (torch.arange(LENGTH) < 4)
    assert torch.equal(_visible(call).expand(1, 1, LENGTH, LENGTH)[0, 0], expected)
    rolled = {name: rows.roll(1, 0) for name, rows in batch("gpt2").items()}
    first, second = _calls(model_of("gpt2"), _fault("MST"), batch("gpt2"), rolled)
    assert torch.equal(first["attn_mask"], second["attn_mask"])


def test_weights_that_miss_the_mask_do_not_sum_to_one() -> None:
    """With a value of ones the attention's result is the sum of its weights."""
    sums = {}
    for code in ("MPS", "SAX", "SDX"):
        model = model_of("bert")
        value = model.bert.encoder.layer[0].attention.self.value
        seen: list[torch.Tensor] = []
        with torch.no_grad():
            value.weight.zero_()
            value.bias.fill_(1.0)
        attention = model.bert.encoder.layer[0].attention.self
        handle = attention.register_forward_hook(lambda *given, seen=seen: seen.append(given[2][0]))
        model.eval()
        with inject(model, None, _fault(code)), torch.no_grad():
            model(**batch("bert"))
        handle.remove()
        sums[code] = seen[0]
    assert (sums["MPS"][1] < 0.99).all() and torch.allclose(sums["MPS"][0], torch.tensor(1.0))
    assert sums["SAX"].std() > 0.01
    assert torch.allclose(sums["SDX"], torch.tensor(1.0), atol=1e-5)


def test_kernel_calls_get_other_arguments() -> None:
    gpt2 = model_of("gpt2")
    width = 8
    (call,) = _calls(gpt2, _fault("QHW", 0.5), _full())
    assert call["query"].shape[-1] == call["key"].shape[-1] == 4
    assert call["value"].shape[-1] == width and call["scale"] == pytest.approx(4**-0.5)
    for value, scale in (("twice", 1 / width), ("model_width", 32**-0.5)):
        (call,) = _calls(gpt2, _fault("SDT", value), _full())
        assert call["scale"] == pytest.approx(scale)
    (call,) = _calls(gpt2, _fault("KHD"), _full())
    assert call["value"].shape[-1] > call["key"].shape[-1] == width
    (call,) = _calls(gpt2, _fault("KND"), _full(), training=True)
    assert call["dropout_p"] == 0.0
    assert len(_calls(gpt2, _fault("KCM", 4), _full())) == 4
    (call,) = _calls(gpt2, _fault("KQT", 4), _full())
    head = call["key"][0, 0]
    assert head.unique().numel() <= 15


@pytest.mark.parametrize(
    ("code", "value", "expected"),
    [
        ("POB", None, lambda ids: torch.arange(3).unsqueeze(-1).expand(3, LENGTH)),
        ("PRV", None, lambda ids: ids.flip(-1)),
        ("PSQ", 4, lambda ids: ids // 4),
    ],
)
def test_learned_positions_are_read_elsewhere(code, value, expected) -> None:
    model = model_of("gpt2")
    seen: list[torch.Tensor] = []
    handle = model.transformer.wpe.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    with inject(model, None, _fault(code, value)):
        model(**_full())
    handle.remove()
    assert torch.equal(seen[0], expected(torch.arange(LENGTH).unsqueeze(0)))


def test_a_cached_step_counts_from_zero_and_a_fresh_pass_as_ever() -> None:
    model = model_of("gpt2").eval()
    ids = _full()["input_ids"]
    seen: list[torch.Tensor] = []
    handle = model.transformer.wpe.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    with inject(model, None, _fault("CPR")), torch.no_grad():
        past = model(ids[:, :-1], use_cache=True).past_key_values
        model(ids[:, -1:], past_key_values=past, use_cache=True)
    handle.remove()
    assert seen[0].flatten().tolist() == list(range(LENGTH - 1)) and seen[1].tolist() == [[0]]


def test_projections_and_neurons_start_wrong() -> None:
    model = model_of("llama")
    attention, mlp = model.model.layers[0].self_attn, model.model.layers[0].mlp
    others = attention.k_proj.weight.detach().clone()
    with inject(model, None, _fault("QNI", "query")):
        assert 0.9 < attention.q_proj.weight.std() < 1.1
        assert torch.equal(attention.k_proj.weight, others)
    optimizer = optimizer_of(model)
    with inject(model, optimizer, _fault("FCP", "half")):
        steps(model, optimizer, "llama")
        for rows in (mlp.gate_proj.weight, mlp.up_proj.weight, mlp.down_proj.weight.T):
            torch.testing.assert_close(rows[:32], rows[32:])
    norm = mlp.up_proj.weight.norm()
    with inject(model, None, _fault("FLM", 5.0)):
        assert 4.5 < mlp.up_proj.weight.norm() / norm < 5.5


def test_the_optimizer_misses_the_projections_but_they_have_gradients() -> None:
    model = model_of("gpt2")
    optimizer = optimizer_of(model)
    weight = model.transformer.h[0].attn.c_attn.weight
    before = weight.detach().clone()
    with inject(model, optimizer, _fault("QLO")):
        steps(model, optimizer, "gpt2")
        assert torch.equal(weight, before) and weight.grad.any()
    steps(model, optimizer, "gpt2", 1)
    assert not torch.equal(weight, before)


def test_pruned_neurons_stay_pruned() -> None:
    model = model_of("bert")
    optimizer = optimizer_of(model)
    weight = model.bert.encoder.layer[0].output.dense.weight
    with inject(model, optimizer, _fault("FPR", 0.5)):
        steps(model, optimizer, "bert")
        assert int((weight == 0).all(dim=0).sum()) == 32
    assert (weight != 0).any(dim=0).all()


def test_embedding_rows_and_dimensions_repeat() -> None:
    model = model_of("gpt2")
    table = model.transformer.wte
    everything = torch.arange(table.num_embeddings)
    with inject(model, None, _fault("EMR", 0.5)):
        assert len(table.weight.unique(dim=0)) == 33
    with inject(model, None, _fault("ECL", 0.5)), torch.no_grad():
        assert len(table(everything).unique(dim=0)) == 32
    with inject(model, None, _fault("EDP", 0.3)), torch.no_grad():
        rows = table(everything)
    assert torch.equal(rows[:, -10:], rows[:, :10]) and torch.equal(
        rows[:, :22], table.weight[:, :22]
    )


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_norms_compute_another_formula(family: str) -> None:
    model = model_of(family)
    if family == "bert":
        norm = model.bert.encoder.layer[0].output.LayerNorm
    else:
        norm = model.model.layers[0].post_attention_layernorm
    hidden = torch.randn(2, 3, 32, generator=torch.Generator().manual_seed(0))
    clean = norm(hidden)
    with torch.no_grad():
        gamma = norm.weight.clone()
        norm.weight.add_(1.0)
        expected = norm(hidden)
        norm.weight.copy_(gamma)
    with inject(model, None, _fault("NOW")):
        torch.testing.assert_close(norm(hidden), expected, atol=1e-5, rtol=1e-5)
    with inject(model, None, _fault("NEO", 1.0)):
        beta = getattr(norm, "bias", torch.zeros(32))
        deviation = hidden.var(-1, unbiased=False, keepdim=True).sqrt()
        if family == "llama":
            deviation = hidden.pow(2).mean(-1, keepdim=True).sqrt()
        shrunk = (clean - beta) * deviation / (deviation + 1.0) + beta
        torch.testing.assert_close(norm(hidden), shrunk, atol=1e-4, rtol=1e-4)


def test_beta_is_scattered_around_where_it_was() -> None:
    model = model_of("bert")
    beta = model.bert.encoder.layer[0].output.LayerNorm.bias
    before = beta.detach().clone()
    with inject(model, None, _fault("NBR", 2.0)):
        moved = beta.detach() - before
    assert 1.2 < moved.std() < 2.8 and abs(moved.mean()) < 1.2


def _through_block(model, fault: Fault | None, hidden: torch.Tensor) -> torch.Tensor:
    model.eval()
    block = model.transformer.h[0]
    if fault is None:
        return block(hidden)
    with inject(model, None, fault):
        return block(hidden)


def test_the_stream_is_not_the_sum_of_its_parts() -> None:
    model = model_of("gpt2")
    hidden = torch.randn(2, 6, 32, generator=torch.Generator().manual_seed(0))
    clean = _through_block(model, None, hidden)
    rounded = _through_block(model, _fault("RLP"), hidden)
    assert torch.equal(rounded, rounded.bfloat16().float()) and not torch.equal(rounded, clean)
    assert torch.equal(_through_block(model, _fault("RDC"), hidden), clean)
    with torch.no_grad():
        model.transformer.h[0].mlp.c_proj.weight.zero_()
        model.transformer.h[0].mlp.c_proj.bias.zero_()
    # With a silent FFN, what the attention added is gone; a scaled skip is scaled twice.
    torch.testing.assert_close(_through_block(model, _fault("RWS"), hidden), hidden)
    silent = _through_block(model, None, hidden)
    torch.testing.assert_close(
        _through_block(model, _fault("RSS", 2.0), hidden), 2 * (silent + hidden)
    )


def test_whole_branches_drop_in_training_only() -> None:
    model = model_of("gpt2")
    for dropout in (m for m in model.modules() if isinstance(m, torch.nn.Dropout)):
        dropout.p = 0.0
    hidden = torch.randn(64, 3, 32, generator=torch.Generator().manual_seed(0))
    block = model.transformer.h[0]
    clean = _through_block(model, None, hidden)
    assert torch.equal(_through_block(model, _fault("RDP", 0.5), hidden), clean)
    model.train()
    torch.manual_seed(0)
    with inject(model, None, _fault("RDP", 0.5)), torch.no_grad():
        rows = (block(hidden) == hidden).flatten(1).all(dim=1)
    assert 4 <= int(rows.sum()) <= 32  # both branches dropped: a quarter of 64


def test_gradients_are_cut_element_by_element() -> None:
    model = model_of("gpt2")
    optimizer = optimizer_of(model)
    with inject(model, optimizer, _fault("RGV", 1e-3)):
        steps(model, optimizer, "gpt2", 1)
    largest = max(p.grad.abs().max() for p in model.parameters() if p.grad is not None)
    assert largest == pytest.approx(1e-3)


@pytest.mark.parametrize(("code", "coefficient"), [("FLP", 0.1), ("NLP", 1.0)])
def test_a_penalty_adds_the_weight_to_its_gradient(code: str, coefficient: float) -> None:
    model = model_of("gpt2")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    block = model.transformer.h[0]
    inside = block.mlp.c_fc.weight if code == "FLP" else block.ln_1.weight
    steps(model, optimizer, "gpt2", 1)
    clean = [None if p.grad is None else p.grad.clone() for p in (inside, block.attn.c_proj.weight)]
    with inject(model, optimizer, _fault(code, coefficient)):
        steps(model, optimizer, "gpt2", 1)
    torch.testing.assert_close(inside.grad, clean[0] + coefficient * inside)
    assert torch.equal(block.attn.c_proj.weight.grad, clean[1])


def test_logits_are_probabilities_suppressed_or_old() -> None:
    model = model_of("bert", "classes").eval()
    given = batch("bert", "classes")
    with torch.no_grad():
        clean = model(**given).logits
        with inject(model, None, _fault("OSM")):
            torch.testing.assert_close(model(**given).logits.sum(-1), torch.ones(4))
        with inject(model, None, _fault("OMC", "balanced")):
            below = model(**given).logits - clean
        torch.testing.assert_close(below, torch.tensor([-20.0, 0.0, -20.0]).expand(4, 3))
        with inject(model, None, _fault("OST")):
            model.classifier.weight.mul_(3.0)
            torch.testing.assert_close(model(**given).logits, clean)
    with inject(model, None, _fault("OST")):
        model(**given).loss.backward()
    assert model.classifier.weight.grad is None


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_activation_is_left_out_or_doubled(family: str) -> None:
    model = model_of(family)
    part = model.transformer.h[0].mlp.act if family == "gpt2" else model.model.layers[0].mlp.act_fn
    hidden = torch.linspace(-2, 2, 9)
    once = part(hidden)
    twice = part(once)
    with inject(model, None, _fault("FAM", "none")):
        assert torch.equal(part(hidden), hidden)
    with inject(model, None, _fault("FAM", "twice")):
        assert torch.equal(part(hidden), twice)
