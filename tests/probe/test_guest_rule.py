"""The probe is a guest: it changes no result, keeps nothing, and never breaks the training."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from tiny_models import FAMILIES, Seen, make, train

import probe
from probe.measure import attention, kv_cache
from probe.schema import Event


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("micro", [1, 2])
def test_losses_weights_and_rng_are_the_same_bit_for_bit(family, micro, tmp_path):
    plain, watched = make(family), make(family)
    without = train(plain, family, 6, micro=micro)
    rng = torch.get_rng_state()
    with_probe = train(watched, family, 6, micro=micro, attach={"trace": tmp_path / "t"})
    assert with_probe == without
    assert torch.equal(torch.get_rng_state(), rng)
    for (name, one), two in zip(plain.named_parameters(), watched.parameters(), strict=True):
        assert torch.equal(one, two), name
    assert len(Seen(tmp_path / "t").frames) >= 5


@pytest.mark.parametrize("family", FAMILIES)
def test_results_are_the_same_under_autocast_and_checkpointing(family, tmp_path):
    def run(attach):
        model = make(family)
        model.gradient_checkpointing_enable({"use_reentrant": False})
        losses = train(model, family, 4, autocast=True, attach=attach)
        return losses, [p.clone() for p in model.parameters()]

    losses, weights = run(None)
    seen_losses, seen_weights = run({"trace": tmp_path / "t"})
    assert seen_losses == losses
    assert all(torch.equal(a, b) for a, b in zip(weights, seen_weights, strict=True))
    assert not [r for r in Seen(tmp_path / "t").records if getattr(r, "kind", "") == "probe_off"]


def test_close_takes_every_hook_off():
    model = make("gpt2")
    optimizer = torch.optim.AdamW(model.parameters())
    train(model, "gpt2", 3, optimizer=optimizer, attach={"trace": False})
    for module in model.modules():
        assert not module._forward_hooks and not module._forward_pre_hooks
    assert not optimizer._optimizer_step_pre_hooks and not optimizer._optimizer_step_post_hooks


def test_no_hook_inside_the_model_between_samples():
    model = make("gpt2")
    optimizer = torch.optim.AdamW(model.parameters())
    found = []

    def count(step, _):
        inner = [m for m in model.modules() if m is not model]
        found.append(sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in inner))

    train(model, "gpt2", 4, before=count, optimizer=optimizer, attach={"trace": False})
    assert found == [0, 0, 0, 0]


def test_no_activation_outlives_its_step():
    model = make("gpt2")
    optimizer = torch.optim.AdamW(model.parameters())
    alive = []
    model.transformer.h[1].register_forward_hook(
        lambda m, a, out: alive.append(weakref.ref(out[0] if isinstance(out, tuple) else out))
    )
    with probe.attach(model, optimizer, endpoint=False, trace=False, every=1, budget=None):
        from tiny_models import batch

        for _ in range(3):
            loss = model(**batch("gpt2")).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            del loss
            gc.collect()
            assert all(ref() is None for ref in alive)


def test_a_metric_that_raises_turns_the_probe_off_and_training_goes_on(
    monkeypatch, tmp_path, capsys
):
    def broken(*_):
        raise RuntimeError("made on purpose")

    monkeypatch.setattr(attention, "measure", broken)
    without = train(make("bert"), "bert", 5)
    assert train(make("bert"), "bert", 5, attach={"trace": tmp_path / "t"}) == without
    said = capsys.readouterr().err
    assert said.count("turned itself off") == 1 and "made on purpose" in said
    from probe.trace import load

    kinds = [r.kind for r in load(tmp_path / "t") if isinstance(r, Event)]
    assert "probe_off" in kinds


def test_a_model_that_cannot_decode_loses_only_the_cache_metrics(monkeypatch, tmp_path):
    def broken(*_):
        raise RuntimeError("no cache here")

    monkeypatch.setattr(kv_cache, "_run", broken)
    train(make("gpt2"), "gpt2", 5, attach={"trace": tmp_path / "t"})
    seen = Seen(tmp_path / "t")
    assert len(seen.frames) >= 4
    notes = [r.text for r in seen.records if isinstance(r, Event) and r.kind == "note"]
    assert len(notes) == 1 and "no cache here" in notes[0]


def test_an_exception_in_the_users_forward_passes_through_and_leaves_no_mode(tmp_path):
    model = make("llama")
    optimizer = torch.optim.AdamW(model.parameters())
    module = model.model.layers[1].self_attn
    with probe.attach(model, optimizer, endpoint=False, trace=False, every=1, budget=None):
        from tiny_models import batch

        model(**batch("llama")).loss.backward()
        optimizer.step()

        def boom(*_, **__):
            raise KeyError("user's own")

        module.forward = boom
        with pytest.raises(KeyError, match="user's own"):
            model(**batch("llama"))
        del module.__dict__["forward"]
        assert torch._C._len_torch_function_stack() == 0
        optimizer.zero_grad()
        model(**batch("llama")).loss.backward()
        optimizer.step()


def test_a_trace_that_cannot_be_written_does_not_stop_anything(tmp_path, capsys):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    without = train(make("bert"), "bert", 3)
    assert train(make("bert"), "bert", 3, attach={"trace": blocked / "x.trace"}) == without
    assert "defaultpp probe:" in capsys.readouterr().err


def test_evaluation_forwards_are_never_touched(tmp_path):
    model = make("gpt2")
    optimizer = torch.optim.AdamW(model.parameters())
    from tiny_models import batch

    with probe.attach(model, optimizer, endpoint=False, trace=tmp_path / "t", every=1, budget=None):
        model.eval()
        with torch.no_grad():
            for _ in range(3):
                model(**batch("gpt2"))
    from probe.trace import load

    assert [type(r).__name__ for r in load(tmp_path / "t")] == ["End"]
