"""A rerun leaves the model, its hooks' books and all random numbers as the training left them."""

from __future__ import annotations

import random
import warnings

import numpy as np
import pytest
import torch
import torch.utils.checkpoint
from effect_grid import captured, given_to
from family_models import FAMILIES, PACKED, batch, make, train
from tiny_models import Seen
from torch import nn

import probe
from probe.counterfactual import KINDS, Counterfactuals, keep, why_not
from probe.measure import effects
from probe.schema import Event


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def every_kind(monkeypatch):
    """One counterfactual on every sample."""
    monkeypatch.setattr("probe.counterfactual.due", lambda n, kinds: kinds[n % len(kinds)])


def run_all(parts, capture):
    for kind in KINDS:
        if not why_not(kind, parts, capture):
            effects.measure(parts, keep(kind, parts, capture))


class Bookkeeper(nn.Module):
    """Counts its calls in every way a module can."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner
        self.calls, self.seen, self.by_name, self.kinds = 0, [], {}, set()
        self.register_buffer("running", torch.zeros(()))
        self.plain = torch.zeros(3)
        self.own = None

    def forward(self, x):
        self.calls += 1
        self.seen.append(x.shape[0])
        self.by_name[self.calls] = x.shape
        self.kinds.add(tuple(x.shape))
        self.running += 1.0
        self.plain.add_(1.0)
        self.own = x
        self.fresh = x
        return self.inner(x)

    def state(self):
        own = (self.calls, list(self.seen), dict(self.by_name), set(self.kinds), self.own)
        return own, float(self.running), self.plain.tolist(), hasattr(self, "fresh")


def test_what_modules_hold_is_put_back():
    model = make("bert", 0.1)
    book = Bookkeeper(model.bert.encoder.layer[1].output.dropout)
    model.bert.encoder.layer[1].output.dropout = book
    parts, capture = captured(model, given_to("bert"))
    before = book.state()
    book.training_flag = model.bert.pooler.training = False
    run_all(parts, capture)
    assert book.state()[1:] == before[1:]
    assert book.state()[0][:4] == before[0][:4] and book.state()[0][4] is before[0][4]
    assert book.calls == 1 and not model.bert.pooler.training and model.training


def test_random_numbers_go_on_as_if_nothing_had_been():
    parts, capture = captured(make("gpt2", 0.1), given_to("gpt2"))
    torch.manual_seed(5)
    random.seed(5)
    np.random.seed(5)
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    run_all(parts, capture)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (random.getstate(), np.random.get_state()[1].tolist()) == states[1:]


def test_gradients_modes_and_hooks_of_the_model_are_left_alone():
    model = make("gpt2", 0.1)
    given = given_to("gpt2")
    parts, capture = captured(model, given)
    model(**given).loss.backward()
    gradients = [p.grad.clone() for p in model.parameters()]
    versions = [p._version for p in model.parameters()]
    calls = []
    model.register_forward_hook(lambda *_: calls.append(1))
    run_all(parts, capture)
    assert calls == []
    assert all(torch.equal(p.grad, g) for p, g in zip(model.parameters(), gradients, strict=True))
    assert [p._version for p in model.parameters()] == versions
    assert torch._C._len_torch_function_stack() == 0
    assert torch.is_grad_enabled()
    inner = [m for m in model.modules() if m is not model]
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in inner)


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointed_models_are_run_without_a_warning(reentrant):
    model = make("gpt2", 0.1)
    own = torch.utils.checkpoint.check_backward_validity
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.gradient_checkpointing_enable({"use_reentrant": reentrant})
        parts, capture = captured(model, given_to("gpt2"))
        warnings.simplefilter("error")
        run_all(parts, capture)
    assert torch.utils.checkpoint.check_backward_validity is own


@pytest.mark.parametrize("family", FAMILIES)
def test_training_is_the_same_bit_for_bit(family, every_kind, tmp_path):
    packed = family in PACKED
    options = {"packed": packed, "padding": "none" if packed else "right"}
    plain, watched = make(family, 0.1), make(family, 0.1)
    without = train(plain, family, 4, **options)
    rng = torch.get_rng_state()
    assert train(watched, family, 4, trace=tmp_path / "t", **options) == without
    assert torch.equal(torch.get_rng_state(), rng)
    pairs = zip(plain.parameters(), watched.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    seen = Seen(tmp_path / "t")
    assert not [r for r in seen.records if isinstance(r, Event) and r.kind != "attached"]
    assert np.isfinite(seen["output/batch_effect"]).any()


def test_what_is_measured_under_autocast_is_float32(every_kind, tmp_path):
    train(make("bert", 0.1), "bert", 6, trace=tmp_path / "t", autocast=True)
    values = Seen(tmp_path / "t")
    for name in ("padding_effect", "batch_effect", "trim_effect"):
        assert np.nanmax(values[f"output/{name}"]) < 1e-5
    assert np.nanmax(values["output/context_missing"]) == 0.0


def test_a_model_that_fails_when_run_again_is_told_once_and_trained_on(tmp_path, every_kind):
    model = make("bert", 0.1)

    def small(module, args):
        if args[0].shape[0] < 4:
            raise ValueError("four rows at least")

    model.bert.encoder.layer[0].register_forward_pre_hook(small)
    train(model, "bert", 12, trace=tmp_path / "t")
    seen = Seen(tmp_path / "t")
    notes = [r.text for r in seen.records if isinstance(r, Event) and r.kind == "note"]
    assert len(seen.frames) == 12
    assert len(notes) == len(set(notes)) == 5 and all("four rows" in note for note in notes)
    assert np.isnan(seen["output/batch_effect"]).all()


def test_a_batch_that_cannot_be_cut_costs_the_counterfactuals_only(tmp_path, monkeypatch):
    def broken(*_):
        raise RuntimeError("made on purpose")

    monkeypatch.setattr("probe.counterfactual._cut", broken)
    train(make("gpt2"), "gpt2", 5, trace=tmp_path / "t")
    seen = Seen(tmp_path / "t")
    notes = [r.text for r in seen.records if isinstance(r, Event) and r.kind == "note"]
    assert len(seen.frames) == 5 and len(notes) == 1 and "made on purpose" in notes[0]
    assert "made on purpose" in seen.header.absent["output/batch_effect"]


def test_nothing_of_the_batch_is_kept_after_the_step():
    model = make("gpt2")
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
    with probe.attach(model, optimizer, endpoint=False, trace=False, every=1) as watching:
        for _ in range(2):
            model(**batch("gpt2")).loss.backward()
            optimizer.step()
            assert watching._sample is None
        own = watching._reruns.counterfactuals
        assert isinstance(own, Counterfactuals) and own.kinds and not own.failed
