"""Compiled models, in every form, before and after attach: no graph added, none recompiled."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch._dynamo
import torch.nn.functional as F
from tiny_models import Seen
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend
from training_loops import Watch, check_frames, kinds, same

import probe
from probe.compiled import is_compiled, wrappers_of

STEPS = 4


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.c_attn = nn.Linear(width, 3 * width)
        self.c_proj = nn.Linear(width, width)
        self.ffn = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def forward(self, x):
        q, k, v = (t.unflatten(-1, (2, -1)).transpose(1, 2) for t in self.c_attn(x).chunk(3, -1))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.c_proj(y.transpose(1, 2).flatten(2))
        return x + self.ffn(self.norm(x))


class Small(nn.Module):
    """As little as can be compiled in a second and still is a transformer."""

    def __init__(self, width=16):
        super().__init__()
        self.embed = nn.Embedding(50, width)
        self.h = nn.ModuleList(Block(width) for _ in range(2))
        self.head = nn.Linear(width, 50)

    def forward(self, ids, labels):
        x = self.embed(ids)
        for block in self.h:
            x = block(x)
        logits = self.head(x)
        loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
        return {"loss": loss, "logits": logits}


def make():
    torch.manual_seed(1)
    return Small().train()


def batch(length=12):
    ids = torch.randint(0, 50, (4, length))
    return {"ids": ids, "labels": ids}


FORMS = ("module", "in place", "per block", "blocks wrapped", "one function")


@pytest.fixture(autouse=True)
def _fresh():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()
    torch.set_num_threads(threads)


def compiled(model, form, counter):
    """What the loop is to call."""
    if form == "module":
        return torch.compile(model, backend=counter)
    if form == "in place":
        model.compile(backend=counter)
    elif form == "per block":
        for block in model.h:
            block.compile(backend=counter)
    elif form == "blocks wrapped":
        blocks = model.h
        for at, block in enumerate(list(blocks)):
            blocks[at] = torch.compile(block, backend=counter)
    else:
        block = model.h[0]
        block.forward = torch.compile(block.forward, backend=counter)
    return model


def train(form, when, backend, options):
    """``when`` the probe joins: before compiling, after, after the first step; or never."""
    torch._dynamo.reset()
    counter = CompileCounterWithBackend(backend)
    model = make()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    watch = Watch(model, options)
    torch.manual_seed(7)
    if when == "before":
        watch.begin(optimizer)
    call = compiled(model, form, counter)
    if when == "after":
        watch.begin(optimizer, call)
    if when == "inner":
        watch.begin(optimizer)
    for step in range(STEPS):
        if when == "late" and step == 1:
            watch.begin(optimizer, call)
        loss = call(**batch(9 if step == 2 else 12))["loss"]  # a new shape: recompiles
        loss.backward()
        watch.before(loss)
        optimizer.step()
        optimizer.zero_grad()
        model.eval()
        with torch.no_grad():
            call(**batch())
        model.train()
    watch.end()
    return watch, counter.frame_count


LONG = pytest.mark.matrix
WHEN = ["before", "after", pytest.param("inner", marks=LONG), pytest.param("late", marks=LONG)]


@pytest.mark.works_with(
    "Forms of a model", "`torch.compile`, in every form of it (activations are not read)"
)
@pytest.mark.parametrize("backend", ["eager", pytest.param("inductor", marks=LONG)])
@pytest.mark.parametrize("when", WHEN)
@pytest.mark.parametrize("form", FORMS)
def test_no_graph_is_added_and_nothing_changes(form, when, backend, tmp_path):
    plain, graphs = train(form, None, backend, None)
    watched, with_probe = train(form, when, backend, {"trace": tmp_path / "t"})
    assert with_probe == graphs
    for name in ("losses", "gradients", "weights", "states"):
        assert same(getattr(plain, name), getattr(watched, name)), name
    seen = Seen(tmp_path / "t")
    assert not kinds(seen, "probe_off")
    if when == "late":
        watched.step_losses, watched.norms = watched.step_losses[1:], watched.norms[1:]
    steps = list(range(len(watched.norms)))
    # Where the compiled form was made behind the probe's back, the first step's loss goes unseen.
    blind = (form == "module" and when in ("before", "inner")) or (
        form == "in place" and when == "before"
    )
    if blind:
        assert np.isnan(seen["training/loss"][0])
        check_later(watched, seen, steps)
    else:
        check_frames(watched, seen, steps)
    assert (seen["ffn@1/update_ratio"] > 0).all() and (seen["ffn@1/unmoved"] == 0).all()


def check_later(watch, seen, steps):
    assert [frame.step for frame in seen.frames] == steps
    np.testing.assert_allclose(seen["training/loss"][1:], watch.step_losses[1:], rtol=1e-5)
    np.testing.assert_allclose(seen["training/grad_norm"], watch.norms, rtol=1e-4)


@pytest.mark.parametrize("form", FORMS)
def test_close_leaves_a_compiled_model_as_it_was(form):
    model = make()
    call = compiled(model, form, "eager")
    before = {m: dict(m.__dict__) for m in call.modules()}
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
    with probe.attach(call, optimizer, endpoint=False, trace=False, every=1, budget=None):
        for _ in range(2):
            call(**batch())["loss"].backward()
            optimizer.step()
            optimizer.zero_grad()
    for module, known in before.items():
        assert module.__dict__.get("_compiled_call_impl") is known.get("_compiled_call_impl")
        assert not module._forward_hooks and not module._forward_pre_hooks


def test_every_form_is_recognised():
    assert not is_compiled(make())
    for form in FORMS:
        assert is_compiled(compiled(make(), form, "eager")), form


def test_the_wrapper_of_a_model_is_found_among_all_objects():
    model = make()
    assert wrappers_of(model) == []
    wrapper = torch.compile(model, backend="eager")
    assert [found is wrapper for found in wrappers_of(model)] == [True]
