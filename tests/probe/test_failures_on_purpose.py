"""Whatever fails inside the probe, at any seam, is told once and never reaches the training."""

from __future__ import annotations

import errno
import multiprocessing
import os
import sys

import pytest
import torch
from tiny_models import batch, make, train

import probe
from probe.schema import Event
from probe.trace import TraceError, load

STEPS = 5

OFF = {
    # the model and what is read of a forward
    "probe.attaching.find",
    "probe.attaching.batch_of",
    "probe.attaching.read_output",
    "probe.attaching.make_header",
    "probe.attaching.Listening.compiled",
    "probe.sample.Capturing._install",
    "probe.sample.Capturing.close",
    "probe.capture.picked_of",
    "probe.capture.Picked.take",
    "probe.capture.Picked.take_ids",
    "probe.attention_call._scores",
    # what is measured
    "probe.measurement.prepare",
    "probe.measurement.projections",
    "probe.measurement.embedding.measure",
    "probe.measurement.qkv.measure",
    "probe.measurement.score.measure",
    "probe.measurement.mask.measure",
    "probe.measurement.attention.measure",
    "probe.measurement.attention.gram",
    "probe.measurement.residual.measure",
    "probe.measurement.norm.measure",
    "probe.measurement.ffn.measure",
    "probe.measurement.drift.measure",
    "probe.measurement.positional.measure",
    "probe.measurement.output.measure",
    # the step
    "probe.attaching.highest_rate",
    "probe.attaching.held_back",
    "probe.attaching.Skips.before_forward",
    "probe.sample.parameters.keep_weights",
    "probe.sample.parameters.read_gradients",
    "probe.sample.parameters.read_after",
    "probe.sample.training.coverage",
    "probe.sample.training.gradients",
    "probe.sample.training.decay_by_site",
    "probe.sample.Gradients.read",
    "probe.sample.FrameDraft",
    "probe.budget.Budget.wants",
    "probe.budget.Budget.step_done",
    # handing on
    "probe.outlet.Outlet.settle",
    "probe.outlet.Outlet.flush",
    "probe.publisher.Publisher.submit",
}
"""A failure here turns the probe off."""

ON = {
    "probe.outlet.pack": "Frame",
    "probe.frames.History.finish": "Scalars",
    "probe.frames.effective_rank": "Scalars",
    "probe.stream.encode": None,
    "probe.trace_writer.framed": None,
    "probe.publisher.registry.register": "Frame",
    "probe.publisher.registry.refresh": "Frame",
    "probe.publisher.choose": "Frame",
    "probe.publisher.RunSockets": "Frame",
    "probe.publisher.Wake": None,
    "probe.publisher.Publisher._turn": None,
    "probe.publisher.Publisher._drain": None,
    "probe.publisher.Publisher._open": None,
}
"""A failure in the publishing thread; what is recorded all the same, if anything."""


def broken(*_, **__):
    raise RuntimeError("made on purpose")


def break_at(monkeypatch, seam, replacement=broken):
    if seam.endswith(".compiled"):
        replacement = property(broken)
    if seam == "probe.publisher.Publisher.submit":
        # ``close`` must still be able to say why; only the training's own calls fail.
        replacement = broken
    monkeypatch.setattr(seam, replacement)


def told(captured):
    return [line for line in captured.err.splitlines() if line.startswith("defaultpp probe:")]


@pytest.fixture
def own_directories(tmp_path, monkeypatch):
    monkeypatch.setenv("DEFAULTPP_RUNTIME_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("DEFAULTPP_STATE_DIR", str(tmp_path / "state"))


@pytest.fixture(scope="module")
def without():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    model = make("gpt2")
    losses = train(model, "gpt2", STEPS)
    yield losses, [p.clone() for p in model.parameters()], torch.get_rng_state()
    torch.set_num_threads(threads)


def trained(tmp_path, without, **options):
    """Train with the probe; results must be those without it. The model and its optimizer."""
    model = make("gpt2")
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    options = {"trace": tmp_path / "t", "endpoint": None} | options
    losses = train(model, "gpt2", STEPS, optimizer=optimizer, attach=options)
    assert losses == without[0]
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), without[1], strict=True))
    assert torch.equal(torch.get_rng_state(), without[2])
    return model, optimizer


@pytest.mark.parametrize("seam", sorted(OFF))
def test_a_failure_while_measuring_turns_the_probe_off(
    seam, tmp_path, monkeypatch, capsys, without, own_directories
):
    break_at(monkeypatch, seam)
    model, optimizer = trained(tmp_path, without)
    (line,) = told(capsys.readouterr())
    assert "turned itself off" in line and "made on purpose" in line
    for module in model.modules():
        assert not module._forward_hooks and not module._forward_pre_hooks
    assert not optimizer._optimizer_step_pre_hooks and not optimizer._optimizer_step_post_hooks
    assert torch._C._len_torch_function_stack() == 0
    if seam != "probe.publisher.Publisher.submit":
        events = [r for r in load(tmp_path / "t") if isinstance(r, Event)]
        assert [e.kind for e in events if e.kind == "probe_off"] == ["probe_off"]


@pytest.mark.parametrize("seam", ON)
def test_a_failure_in_the_thread_is_told_once(
    seam, tmp_path, monkeypatch, capsys, without, own_directories
):
    break_at(monkeypatch, seam)
    monkeypatch.setattr("probe.registry.REFRESH_SECONDS", 0.0)
    trained(tmp_path, without)
    (line,) = told(capsys.readouterr())
    assert "made on purpose" in line
    if ON[seam] is not None:
        assert ON[seam] in [type(r).__name__ for r in load(tmp_path / "t")]


def test_a_full_disk_is_told_once(tmp_path, monkeypatch, capsys, without, own_directories):
    writes = []

    def full(descriptor, data, write=os.write):
        if len(data) > 1:  # not the byte that wakes the thread
            writes.append(len(data))
            if len(writes) > 3:
                raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, data)

    monkeypatch.setattr("probe.trace_writer.os.write", full)
    trained(tmp_path, without, endpoint=False)
    (line,) = told(capsys.readouterr())
    assert "No space left on device" in line
    assert len(load(tmp_path / "t")) == 2


def test_an_address_in_use_is_told_once(tmp_path, capsys, without, own_directories):
    import zmq

    context = zmq.Context()
    socket = context.socket(zmq.REP)
    try:
        port = socket.bind_to_random_port("tcp://127.0.0.1")
        trained(tmp_path, without, endpoint=f"tcp://127.0.0.1:{port}")
    finally:
        context.destroy(linger=0)
    (line,) = told(capsys.readouterr())
    assert str(port) in line
    assert "Frame" in [type(r).__name__ for r in load(tmp_path / "t")]


def test_a_thread_that_dies_later_turns_the_probe_off(
    tmp_path, monkeypatch, capsys, without, own_directories
):
    """Measuring goes on for no longer than it takes to notice that nobody records it."""
    model = make("gpt2")
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
    with probe.attach(model, optimizer, endpoint=False, trace=tmp_path / "t", every=1) as p:
        model(**batch("gpt2")).loss.backward()
        optimizer.step()
        monkeypatch.setattr(p._publisher, "_turn", broken)
        p.event("note", "wake up")
        p._publisher._thread.join(30)
        assert not p._publisher._thread.is_alive()
        for _ in range(2):
            model(**batch("gpt2")).loss.backward()
            optimizer.step()
        assert not model._forward_hooks and not optimizer._optimizer_step_post_hooks
    assert len(told(capsys.readouterr())) == 1


class Closed:
    def write(self, *_):
        raise BrokenPipeError

    flush = write


@pytest.mark.parametrize("stderr", [None, Closed()], ids=["none", "closed"])
def test_a_probe_that_cannot_even_say_so(stderr, tmp_path, monkeypatch, without, own_directories):
    monkeypatch.setattr("probe.measurement.qkv.measure", broken)
    monkeypatch.setattr(sys, "stderr", stderr)
    trained(tmp_path, without)


def test_a_crash_that_cannot_be_described_passes_through(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("probe.crash.describe", broken)
    model = make("gpt2")
    with (
        pytest.raises(KeyError, match="the user's"),
        probe.attach(
            model, torch.optim.SGD(model.parameters(), lr=1.0), endpoint=False, trace=False
        ),
    ):
        raise KeyError("the user's")
    assert len(told(capsys.readouterr())) == 1


def test_arguments_that_make_no_sense_are_refused_at_once():
    model = make("bert")
    for every in (0, -1, "often", 2.5):
        with pytest.raises(ValueError, match="every"):
            probe.attach(model, every=every)
    assert not model._forward_hooks


def _child(model, optimizer, p, queue):
    before = len(p._outlet._rows)
    losses = []
    for _ in range(2):
        loss = model(**batch("gpt2")).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss))
    p.log(loss=1.0)
    p.event("note", "from the child")
    p.step()
    p.close()
    queue.put((losses, len(p._outlet._rows) - before, p._outlet.row.step))


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_trains_unwatched_and_leaves_the_parents_run_alone(
    tmp_path, own_directories
):
    torch.set_num_threads(1)
    model = make("gpt2")
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
    options = {"endpoint": None, "trace": tmp_path / "t", "every": 1, "budget": None}
    with probe.attach(model, optimizer, **options) as p:
        model(**batch("gpt2")).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        context = multiprocessing.get_context("fork")
        queue = context.SimpleQueue()
        child = context.Process(target=_child, args=(model, optimizer, p, queue))
        child.start()
        losses, rows, step = queue.get()
        child.join(60)
        assert child.exitcode == 0
        assert len(losses) == 2 and rows == 0 and step == 1
        model(**batch("gpt2")).loss.backward()
        optimizer.step()
    records = load(tmp_path / "t")
    assert [r.step for r in records if type(r).__name__ == "Frame"] == [0, 1]
    assert "from the child" not in [getattr(r, "text", "") for r in records]


def test_a_trace_path_that_is_taken_by_another_file(tmp_path, capsys, without, own_directories):
    taken = tmp_path / "t"
    taken.write_text("a person's notes, longer than any magic number")
    trained(tmp_path, without, endpoint=False)
    (line,) = told(capsys.readouterr())
    assert "not a trace" in line
    assert taken.read_text().startswith("a person's notes")
    with pytest.raises(TraceError):
        load(taken)
