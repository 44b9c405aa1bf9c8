"""Training loops of every kind: nothing changes by being watched, and the frames are right."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_models import FAMILIES, batch
from torch.utils.checkpoint import checkpoint
from training_loops import (
    check_frames,
    compared,
    forward,
    kinds,
    scalar,
    update_ratio,
)

LR = 1e-2
MATRIX = [
    pytest.param(family, marks=[] if family == "gpt2" else pytest.mark.matrix)
    for family in FAMILIES
]
every_family = pytest.mark.parametrize("family", MATRIX)


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def sgd(model):
    return torch.optim.SGD(model.parameters(), lr=LR)


def accumulating(model, family, watch, steps):
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR)
    watch.begin(optimizer)
    for _ in range(steps):
        losses = []
        for _ in range(3):
            loss = forward(model, family)
            (loss / 3).backward()
            losses.append(loss)
        watch.before(*losses)
        optimizer.step()
        optimizer.zero_grad()


def clipping(model, family, watch, steps):
    optimizer = sgd(model)
    watch.begin(optimizer)
    for _ in range(steps):
        optimizer.zero_grad()
        loss = forward(model, family)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        watch.before(loss)
        optimizer.step()


def evaluating(model, family, watch, steps):
    optimizer = sgd(model)
    watch.begin(optimizer)
    for _ in range(steps):
        loss = forward(model, family)
        model.eval()
        with torch.no_grad():
            forward(model, family)
        forward(model, family)  # some forget no_grad
        model.train()
        with torch.no_grad():
            forward(model, family)  # and some forget eval
        loss.backward()
        watch.before(loss)
        optimizer.step()
        optimizer.zero_grad()
        model.eval()
        with torch.inference_mode():
            forward(model, family)
        model.train()


def ordinary(model, family, watch, steps):
    optimizer = sgd(model)
    watch.begin(optimizer)
    for _ in range(steps):
        loss = forward(model, family)
        loss.backward()
        watch.before(loss)
        optimizer.step()
        optimizer.zero_grad()


@every_family
@pytest.mark.parametrize("loop", [accumulating, clipping, evaluating, ordinary])
def test_common_loops(loop, family, tmp_path):
    watch, seen = compared(loop, family, tmp_path / "t")
    check_frames(watch, seen, [0, 1, 2, 3, 4])
    if loop is clipping:
        np.testing.assert_allclose(seen["training/grad_norm"], 0.1, rtol=1e-3)
    if loop is ordinary and family == "gpt2":
        # norm_final owns a weight and a bias of 32 elements, so that every element is sampled
        weight = update_ratio(watch, 2, "transformer.ln_f.weight")
        assert seen["norm_final/update_ratio"][2] == pytest.approx(weight, rel=0.6)


@every_family
@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointing_of_blocks(family, reentrant, tmp_path):
    def prepare(model):
        model.gradient_checkpointing_enable({"use_reentrant": reentrant})
        model.enable_input_require_grads()

    watch, seen = compared(ordinary, family, tmp_path / "t", prepare=prepare)
    check_frames(watch, seen, [0, 1, 2, 3, 4])
    plain = compared(ordinary, family, tmp_path / "p")[1]
    for name in ("attention@1/entropy", "qkv@0/grad_norm", "drift@2/update_ratio"):
        if name in plain._index:
            np.testing.assert_allclose(seen[name], plain[name], rtol=1e-5)


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointing_of_the_whole_model(reentrant, tmp_path):
    """Its recomputation in the backward is no second micro-batch, and may stop half way."""

    def loop(model, family, watch, steps):
        optimizer = sgd(model)
        watch.begin(optimizer)
        for _ in range(steps):
            given = batch(family)
            anchor = torch.zeros((), requires_grad=True)

            def call(anchor, given=given):
                return model(**given).loss + 0.0 * anchor

            loss = checkpoint(call, anchor, use_reentrant=reentrant)
            loss.backward()
            watch.before(loss)
            optimizer.step()
            optimizer.zero_grad()

    watch, seen = compared(loop, "gpt2", tmp_path / "t", steps=4)
    check_frames(watch, seen, [0, 1, 2, 3])
    assert not np.isnan(seen["attention@1/entropy"]).any()


def two_optimizers(model, family, watch, steps):
    """Matrices and vectors apart, as with Muon: sites are shared between the two."""
    matrices = [p for p in model.parameters() if p.dim() > 1]
    vectors = [p for p in model.parameters() if p.dim() <= 1]
    one, two = torch.optim.SGD(matrices, lr=LR, momentum=0.9), torch.optim.AdamW(vectors, lr=LR)
    watch.begin([one, two])
    for _ in range(steps):
        loss = forward(model, family)
        loss.backward()
        watch.before(loss)
        one.step()
        two.step()
        one.zero_grad()
        two.zero_grad()


@every_family
def test_several_optimizers_make_one_step(family, tmp_path):
    watch, seen = compared(two_optimizers, family, tmp_path / "t")
    check_frames(watch, seen, [0, 1, 2, 3, 4])
    assert (seen["qkv@1/update_ratio"] > 0).all()
    assert (seen["norm_attention@1/update_ratio"] > 0).all()
    assert (seen["norm_attention@1/unmoved"] == 0).all()
    assert (seen["training/uncovered"] == 0).all() and (seen["training/duplicated"] == 0).all()


def test_decay_counts_at_each_optimizers_own_rate(tmp_path):
    """As with Muon, whose rate is a hundred times that of the AdamW beside it."""

    def loop(model, family, watch, steps):
        matrices = [p for p in model.parameters() if p.dim() > 1]
        vectors = [p for p in model.parameters() if p.dim() <= 1]
        fast = torch.optim.SGD(matrices, lr=0.02)
        slow = torch.optim.AdamW(vectors, lr=2e-4, weight_decay=0.1)
        watch.begin([fast, slow])
        for _ in range(steps):
            loss = forward(model, family)
            loss.backward()
            watch.before(loss)
            fast.step()
            slow.step()
            model.zero_grad()

    _, seen = compared(loop, "gpt2", tmp_path / "t")
    np.testing.assert_allclose(seen["norm_ffn@1/decay_severity"], 0.02, rtol=1e-4)


def test_an_optimizer_that_sits_steps_out_is_not_waited_for(tmp_path):
    def loop(model, family, watch, steps):
        vectors = [p for p in model.parameters() if p.dim() <= 1]
        matrices = [p for p in model.parameters() if p.dim() > 1]
        often, rarely = torch.optim.SGD(matrices, lr=LR), torch.optim.SGD(vectors, lr=LR)
        watch.begin((often, rarely))
        for step in range(steps):
            loss = forward(model, family)
            loss.backward()
            if step % 2 == 0:
                watch.before(loss)
            else:  # only what is used counts as the step's gradient
                for p in vectors:
                    p.grad = None
                watch.before(loss)
            often.step()
            if step % 2 == 0:
                rarely.step()
            model.zero_grad()

    watch, seen = compared(loop, "gpt2", tmp_path / "t", steps=6)
    check_frames(watch, seen, [0, 1, 2, 3, 4, 5])
    moved = seen["norm_attention@1/update_ratio"]
    assert (moved[::2] > 0).all() and (moved[1::2] == 0).all()
    # Nobody expects the parameters of an optimizer to move in a step that it sits out.
    assert not (seen["norm_attention@1/unmoved"] > 0).any()
    assert not kinds(seen, "skipped_step")


def test_optimizers_in_the_backward_given_as_a_dict(tmp_path):
    def loop(model, family, watch, steps):
        optimizers = {p: torch.optim.SGD([p], lr=LR) for p in model.parameters()}
        norms = []
        watch.begin(optimizers)

        def hook(parameter):
            norms.append(float(parameter.grad.double().square().sum()))
            optimizers[parameter].step()
            optimizers[parameter].zero_grad()

        for parameter in optimizers:
            parameter.register_post_accumulate_grad_hook(hook)
        for _ in range(steps):
            loss = forward(model, family)
            watch.before(loss)
            norms.clear()
            loss.backward()
            watch.norms[-1] = sum(norms) ** 0.5

    watch, seen = compared(loop, "gpt2", tmp_path / "t")
    check_frames(watch, seen, [0, 1, 2, 3, 4])
    assert (seen["ffn@1/update_ratio"] > 0).all() and (seen["ffn@1/unmoved"] == 0).all()


@pytest.mark.parametrize("first", [True, False], ids=["hooks first", "probe first"])
def test_optimizers_in_the_backward_told_by_step(first, tmp_path):
    def loop(model, family, watch, steps):
        optimizers = {p: torch.optim.SGD([p], lr=LR) for p in model.parameters()}
        norms = []

        def hook(parameter):
            norms.append(float(parameter.grad.double().square().sum()))
            optimizers[parameter].step()
            optimizers[parameter].zero_grad()

        def hooks():
            for parameter in optimizers:
                parameter.register_post_accumulate_grad_hook(hook)

        if first:
            hooks()
        watch.begin(None)
        if not first:
            hooks()
        for _ in range(steps):
            loss = forward(model, family)
            watch.before(loss)
            norms.clear()
            loss.backward()
            watch.norms[-1] = sum(norms) ** 0.5
            if watch.probe is not None:
                watch.probe.step()

    watch, seen = compared(loop, "gpt2", tmp_path / "t")
    check_frames(watch, seen, [0, 1, 2, 3, 4])
    assert (seen["ffn@1/update_ratio"] > 0).all() and (seen["ffn@1/unmoved"] == 0).all()


def test_step_beside_an_optimizers_hook_does_not_count_twice(tmp_path):
    def loop(model, family, watch, steps):
        optimizer = sgd(model)
        watch.begin(optimizer)
        for _ in range(steps):
            loss = forward(model, family)
            loss.backward()
            watch.before(loss)
            optimizer.step()
            optimizer.zero_grad()
            if watch.probe is not None:
                watch.probe.step()

    watch, seen = compared(loop, "bert", tmp_path / "t")
    check_frames(watch, seen, [0, 1, 2, 3, 4])


@pytest.mark.parametrize("named", [False, True], ids=["positional", "named"])
def test_a_closure_makes_the_gradients_inside_the_step(named, tmp_path):
    def loop(model, family, watch, steps):
        optimizer = sgd(model)
        watch.begin(optimizer)

        def closure():
            optimizer.zero_grad()
            loss = forward(model, family)
            loss.backward()
            watch.before(loss)
            return loss

        for _ in range(steps):
            result = optimizer.step(closure=closure) if named else optimizer.step(closure)
            assert result is not None

    watch, seen = compared(loop, "gpt2", tmp_path / "t")
    check_frames(watch, seen, [0, 1, 2, 3, 4])
    assert (seen["qkv@1/unmoved"] == 0).all() and np.isfinite(seen["attention@1/entropy"]).all()


# -- gradient scalers ------------------------------------------------------------------------------

BAD = (0, 3)
"""Attempts whose loss overflows."""


def scaled(fused, clip, zero_first):
    def loop(model, family, watch, steps):
        optimizer = torch.optim.AdamW(model.parameters(), lr=LR, fused=fused)
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
        watch.begin(optimizer)
        for attempt in range(steps):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                loss = forward(model, family)
            if zero_first:
                optimizer.zero_grad()
            bad = attempt in BAD
            scaler.scale(loss * float("inf") if bad else loss).backward()
            scale = scaler.get_scale()
            if clip:
                scaler.unscale_(optimizer)
                torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
                scale = 1.0
            if not bad:
                watch.before(loss, scale=scale)
            scaler.step(optimizer)
            scaler.update()
            if not zero_first:
                optimizer.zero_grad()

    return loop


@every_family
@pytest.mark.parametrize("zero_first", [False, True], ids=["zeroed after", "zeroed before"])
@pytest.mark.parametrize("clip", [False, True], ids=["plain", "clipped"])
@pytest.mark.parametrize("fused", [False, True], ids=["unfused", "fused"])
def test_gradient_scaler(family, fused, clip, zero_first, tmp_path):
    watch, seen = compared(scaled(fused, clip, zero_first), family, tmp_path / "t", steps=6)
    # An attempt that was skipped has a number, an event and scalars, but no frame. Where only the
    # next backward tells that one was skipped, the sample in hand is of both and is given up.
    late = zero_first and not fused
    check_frames(watch, seen, [2, 5] if late else [1, 2, 4, 5])
    assert [event.step for event in kinds(seen, "skipped_step")] == list(BAD)
    assert sorted(scalar(seen, "step_time")) == list(range(6))
    assert (seen["qkv@0/unmoved"] == 0).all()


def test_a_batch_the_loop_itself_leaves_out_is_a_skipped_step(tmp_path):
    def loop(model, family, watch, steps):
        optimizer = sgd(model)
        watch.begin(optimizer)
        for attempt in range(steps):
            loss = forward(model, family)
            loss.backward()
            if attempt == 2:
                optimizer.zero_grad()
                continue
            watch.before(loss)
            optimizer.step()
            optimizer.zero_grad()

    watch, seen = compared(loop, "bert", tmp_path / "t")
    check_frames(watch, seen, [0, 1, 3, 4])
    assert [event.step for event in kinds(seen, "skipped_step")] == [2]


def test_two_forwards_before_one_backward_are_not_a_skipped_step(tmp_path):
    def loop(model, family, watch, steps):
        optimizer = sgd(model)
        watch.begin(optimizer)
        for _ in range(steps):
            one, two = forward(model, family), forward(model, family)
            (one + two).backward()
            watch.before(one, two)
            optimizer.step()
            optimizer.zero_grad()

    watch, seen = compared(loop, "bert", tmp_path / "t")
    check_frames(watch, seen, [0, 1, 2, 3, 4])
    assert not kinds(seen, "skipped_step")
