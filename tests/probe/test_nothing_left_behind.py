"""After a step no tensor is kept, after close nothing of the probe; neither holds the other."""

from __future__ import annotations

import copy
import gc
import io
import os
import pickle
import sys
import threading
import weakref

import pytest
import torch
from tiny_models import FAMILIES, batch, make, train
from torch.utils._python_dispatch import TorchDispatchMode

import probe
from probe.trace import load


@pytest.fixture
def no_collector():
    """Only reference counts free anything: whatever goes, goes without the cycle collector."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


class Made(TorchDispatchMode):
    """Weak references to every tensor that an operation returned, by the operation's name."""

    def __init__(self):
        super().__init__()
        self.made = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if func._schema.is_mutable:  # gives back what there was before
            return out
        for tensor in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(tensor, torch.Tensor) and tensor.numel() > 64:
                self.made.append((str(func), weakref.ref(tensor)))
        return out

    def alive(self, kept=()):
        """Names of those that are still there, and are none of ``kept``."""
        meant = {id(tensor) for tensor in kept}
        there = [(name, ref()) for name, ref in self.made]
        return [name for name, tensor in there if tensor is not None and id(tensor) not in meant]


@pytest.mark.parametrize("family", FAMILIES)
def test_no_tensor_made_in_a_step_outlives_it_but_samples_of_the_weights(family, no_collector):
    model = make(family)
    parameters = len(list(model.parameters()))
    earlier = Made()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
    with probe.attach(model, optimizer, endpoint=False, trace=False, every=1, budget=None) as p:
        for _ in range(4):
            with Made() as watch:
                model(**batch(family)).loss.backward()
                optimizer.step()
                optimizer.zero_grad()
            p._outlet.settle()  # the frame leaves the training thread, ...
            drained = threading.Event()
            p._publisher.submit(lambda seq, done=drained: done.set())
            assert drained.wait(30)  # ... and the publishing thread has made it
            assert len(watch.made) > 100
            # A few elements of each weight, until the next sample compares with them.
            kept = [samples.rows for samples in p._weights.samples]
            assert 0 < sum(rows.numel() for rows in kept) <= 2048 * parameters
            assert watch.alive(kept) == [] and earlier.alive() == []
            earlier = watch


def snapshot(model, optimizer):
    modules = {
        name: {
            key: list(getattr(module, key))
            for key in vars(module)
            if "hooks" in key and isinstance(getattr(module, key), dict)
        }
        for name, module in model.named_modules()
    }
    return (
        modules,
        [sorted(vars(module)) for module in model.modules()],
        [(p._backward_hooks, p._post_accumulate_grad_hooks) for p in model.parameters()],
        (list(optimizer._optimizer_step_pre_hooks), list(optimizer._optimizer_step_post_hooks)),
        torch._C._len_torch_function_stack(),
        torch._C._len_torch_dispatch_stack(),
        (sys.excepthook, threading.excepthook, sys.stdout, sys.stderr),
        {thread.name for thread in threading.enumerate()},
        {os.readlink(f"/proc/self/fd/{fd}") for fd in _descriptors()},
        torch.nn.functional.scaled_dot_product_attention,
        torch.is_grad_enabled(),
        dict(torch.nn.modules.module._global_forward_hooks),
    )


def _descriptors():
    return [fd for fd in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{fd}")]


def emptied(found):
    """Hook tables that were created empty on a parameter count as none."""
    return [tuple(list(hooks.values()) if hooks else None for hooks in pair) for pair in found]


@pytest.mark.parametrize("ending", ["close", "with", "failure", "exception", "interrupt"])
@pytest.mark.parametrize("endpoint", [False, None], ids=["trace only", "sockets"])
def test_detaching_leaves_nothing(ending, endpoint, tmp_path, monkeypatch):
    monkeypatch.setenv("DEFAULTPP_RUNTIME_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("DEFAULTPP_STATE_DIR", str(tmp_path / "state"))
    model = make("gpt2")
    optimizer = torch.optim.AdamW(model.parameters())
    train(model, "gpt2", 1, optimizer=optimizer)
    options = {"endpoint": endpoint, "trace": tmp_path / "t", "every": 1, "budget": None}
    with probe.attach(model, optimizer, **options):  # once, so that what is lazy has been made
        model(**batch("gpt2")).loss.backward()
    before = snapshot(model, optimizer)
    p = probe.attach(model, optimizer, **options)
    assert snapshot(model, optimizer) != before
    model(**batch("gpt2")).loss.backward()
    optimizer.step()
    if ending == "close":
        p.close()
    elif ending == "with":
        with p:
            pass
    elif ending == "failure":
        p._fail(RuntimeError("made on purpose"))
        p.close()
    else:
        kind = RuntimeError if ending == "exception" else KeyboardInterrupt

        def boom(*_):
            raise kind

        handle = model.transformer.h[1].attn.c_attn.register_forward_hook(boom)
        with pytest.raises(kind), p:
            model(**batch("gpt2"))
        handle.remove()
    after = snapshot(model, optimizer)
    for at, (one, two) in enumerate(zip(before, after, strict=True)):
        if at == 2:
            assert emptied(one) == emptied(two)
        else:
            assert one == two, at


def test_ctrl_c_in_the_forward_leaves_no_mode_once_the_training_goes_on(tmp_path):
    """In a notebook the person goes on with the same model and the same probe."""
    model = make("gpt2")
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
    with probe.attach(model, optimizer, endpoint=False, trace=tmp_path / "t", every=1, budget=None):
        model(**batch("gpt2")).loss.backward()
        optimizer.step()

        def interrupt(*_):
            raise KeyboardInterrupt

        handle = model.transformer.h[1].attn.c_attn.register_forward_hook(interrupt)
        with pytest.raises(KeyboardInterrupt):
            model(**batch("gpt2"))
        handle.remove()
        for _ in range(2):
            optimizer.zero_grad()
            model(**batch("gpt2")).loss.backward()
            assert torch._C._len_torch_function_stack() == 0
            inner = [m for m in model.modules() if m is not model]
            assert not any(m._forward_hooks or m._forward_pre_hooks for m in inner)
            optimizer.step()
    assert torch._C._len_torch_function_stack() == 0
    frames = [r for r in load(tmp_path / "t") if type(r).__name__ == "Frame"]
    assert [frame.step for frame in frames] == [0, 1, 2]


@pytest.mark.parametrize("closed", [True, False], ids=["closed", "failed"])
def test_a_model_is_freed_when_its_training_ends(closed, no_collector, tmp_path):
    def life():
        model = make("gpt2")
        optimizer = torch.optim.AdamW(model.parameters())
        p = probe.attach(
            model, optimizer, endpoint=False, trace=tmp_path / "t", every=1, budget=None
        )
        for _ in range(5):
            model(**batch("gpt2")).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        if closed:
            p.close()
        else:
            p._fail(RuntimeError("made on purpose"))
        return weakref.ref(model), weakref.ref(model.lm_head.weight), weakref.ref(optimizer), p

    *refs, p = life()
    assert [ref() for ref in refs] == [None, None, None]
    p.close()
    ref = weakref.ref(p)
    del p
    assert ref() is None


@pytest.mark.parametrize("endpoint", [False, None], ids=["trace only", "sockets"])
def test_nothing_of_a_closed_probe_waits_for_the_cycle_collector(
    endpoint, no_collector, tmp_path, monkeypatch
):
    """A process that makes hundreds of probes would carry hundreds of headers and backlogs."""
    monkeypatch.setenv("DEFAULTPP_RUNTIME_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("DEFAULTPP_STATE_DIR", str(tmp_path / "state"))
    train(make("gpt2"), "gpt2", 3, attach={"trace": tmp_path / "t", "endpoint": endpoint})
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        gc.collect()
        kinds = {f"{type(found).__module__}.{type(found).__name__}" for found in gc.garbage}
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
    assert not {kind for kind in kinds if kind.startswith(("probe.", "torch.", "threading."))}


def test_a_probe_that_was_forgotten_goes_with_its_model(tmp_path):
    """``probe.attach(...)`` without a close, in a process that goes on to something else."""
    model = make("gpt2")
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
    p = weakref.ref(
        probe.attach(model, optimizer, endpoint=False, trace=tmp_path / "t", every=1, budget=None)
    )
    model(**batch("gpt2")).loss.backward()
    optimizer.step()
    gc.collect()
    assert p() is not None  # the model holds it
    thread = p()._publisher._thread
    del model, optimizer
    gc.collect()
    assert p() is None
    thread.join(30)
    assert not thread.is_alive()
    assert load(tmp_path / "t")[-1].reason == "the model is gone"


def test_copies_of_a_watched_model_carry_no_probe():
    """Averaged copies and saved modules are made while the probe is attached."""
    model = make("gpt2")
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
    with probe.attach(model, optimizer, endpoint=False, trace=False) as p:
        model(**batch("gpt2")).loss.backward()
        copied = copy.deepcopy(model)
        averaged = torch.optim.swa_utils.AveragedModel(model)
        file = io.BytesIO()
        torch.save(model, file)
        assert b"probe" not in file.getvalue()
        loaded = torch.load(io.BytesIO(file.getvalue()), weights_only=False)
        pickle.loads(pickle.dumps(optimizer.state_dict()))
        copy.deepcopy(optimizer)
        rows = p._outlet.row.losses
        seen = len(rows)
        for other in (copied, averaged, loaded):
            assert torch.isfinite(other(**batch("gpt2")).loss)
        assert len(rows) == seen
        assert not any(p in gc.get_referents(hook) for hook in _hooks(copied))
    assert torch.isfinite(copied(**batch("gpt2")).loss)


def _hooks(model):
    return [hook for m in model.modules() for hook in m._forward_hooks.values()]


@pytest.mark.matrix
def test_hundreds_of_probes_one_after_the_other_do_not_grow_the_process(tmp_path):
    def rss():
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def once():
        path = tmp_path / "t"
        train(make("gpt2"), "gpt2", 5, attach={"trace": path, "endpoint": False})
        path.unlink()

    gc.collect()
    gc.disable()
    try:
        for _ in range(20):
            once()
        before = rss()
        for _ in range(200):
            once()
    finally:
        gc.enable()
    # Twenty models of this size and their optimizers would be more than that.
    assert rss() - before < 12e6
