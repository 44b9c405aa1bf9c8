"""An exception that leaves the training is recorded in words, and passes through untouched."""

from __future__ import annotations

import gc
import subprocess
import sys
import weakref

import pytest
import torch
from tiny_models import batch, make

import probe
from probe.crash import site_of
from probe.schema import End, Event, Header, Site
from probe.trace import load


def watched(model, path, optimizer=None):
    optimizer = optimizer or torch.optim.SGD(model.parameters(), lr=1e-2)
    options = {"endpoint": False, "trace": path, "every": 1, "budget": None}
    return probe.attach(model, optimizer, **options), optimizer


def train_until_it_dies(model, path, steps=3, at=2, given=None, break_it=None, optimizer=None):
    """Trains ``steps`` steps; before step ``at`` breaks something; the error must come through."""
    p, optimizer = watched(model, path, optimizer)
    with p:
        for step in range(steps):
            if step == at and break_it is not None:
                break_it()
            arguments = given if step == at and given is not None else batch("gpt2")
            model(**arguments).loss.backward()
            optimizer.step()
            optimizer.zero_grad()


def crashes(path):
    return [r for r in load(path) if isinstance(r, Event) and r.kind == "crash"]


def test_a_forward_that_dies_in_a_projection(tmp_path):
    model = make("gpt2")

    def break_it():
        old = model.transformer.h[1].attn.c_proj
        old.weight = torch.nn.Parameter(torch.zeros(16, 32))

    with pytest.raises(RuntimeError):
        train_until_it_dies(model, tmp_path / "t", break_it=break_it)
    (event,) = crashes(tmp_path / "t")
    details = event.details
    assert event.step == 2
    assert details["type"] == "RuntimeError" and details["message"]
    assert details["phase"] == "forward"
    assert details["module"] == "transformer.h.1.attn.c_proj"
    assert details["class"] == "Conv1D"
    assert details["site"] in ("score@1", "attention@1")
    assert details["inputs"] == "x float32 6x28x32"
    assert "c_proj" in event.text and "float32 6x28x32" in event.text
    end = load(tmp_path / "t")[-1]
    assert isinstance(end, End) and end.reason == "stopped by RuntimeError"


def test_the_very_first_forward_may_die(tmp_path):
    model = make("gpt2")
    given = batch("gpt2")
    given["input_ids"] = given["input_ids"] + 100
    with pytest.raises(IndexError):
        train_until_it_dies(model, tmp_path / "t", at=0, given=given)
    records = load(tmp_path / "t")
    assert isinstance(records[0], Header)
    (event,) = crashes(tmp_path / "t")
    assert event.step == 0
    assert event.details["site"] == "embedding" and event.details["module"] == "transformer.wte"
    assert event.details["inputs"].endswith("int64 6x28")


def test_a_backward_that_dies(tmp_path):
    class Dies(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, grad):
            raise ValueError("in the backward")

    model = make("gpt2")

    def break_it():
        model.transformer.h[1].register_forward_hook(lambda m, a, out: Dies.apply(out))

    with pytest.raises(ValueError, match="in the backward"):
        train_until_it_dies(model, tmp_path / "t", break_it=break_it)
    (event,) = crashes(tmp_path / "t")
    assert event.details["phase"] == "backward"
    assert event.details["module"] == event.details["site"] == ""
    assert event.text == "ValueError in the backward: in the backward"


def test_an_optimizer_that_dies(tmp_path):
    model = make("gpt2")
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)

    def break_it():
        optimizer.param_groups[0]["lr"] = "much"

    with pytest.raises(TypeError):
        train_until_it_dies(model, tmp_path / "t", break_it=break_it, optimizer=optimizer)
    (event,) = crashes(tmp_path / "t")
    assert event.details["phase"] == "optimizer" and event.details["type"] == "TypeError"


def test_a_loop_that_dies(tmp_path):
    def break_it():
        raise LookupError("no more data")

    with pytest.raises(LookupError):
        train_until_it_dies(make("gpt2"), tmp_path / "t", break_it=break_it)
    (event,) = crashes(tmp_path / "t")
    assert event.details["phase"] == "loop" and event.details["module"] == ""
    assert event.details["where"].startswith("test_crash.py:")


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_ending_a_training_on_purpose_is_no_crash(kind, tmp_path):
    def break_it():
        raise kind

    with pytest.raises(kind):
        train_until_it_dies(make("gpt2"), tmp_path / "t", break_it=break_it)
    assert not crashes(tmp_path / "t")
    assert load(tmp_path / "t")[-1].reason == f"stopped by {kind.__name__}"


def test_what_the_loop_catches_is_no_crash(tmp_path):
    model = make("gpt2")
    p, optimizer = watched(model, tmp_path / "t")
    with p:
        for step in range(4):
            given = batch("gpt2")
            if step in (1, 3):
                given["input_ids"] = given["input_ids"] + 100
            try:
                model(**given).loss.backward()
            except IndexError:
                continue
            optimizer.step()
            optimizer.zero_grad()
    assert not crashes(tmp_path / "t")


def test_closing_in_a_finally_records_what_is_on_its_way_out(tmp_path):
    model = make("gpt2")
    p, _ = watched(model, tmp_path / "t")

    def main():
        try:
            model(**batch("gpt2"))
            raise OSError("the disk of the data set is gone")
        finally:
            p.close()

    with pytest.raises(OSError, match="data set"):
        main()
    (event,) = crashes(tmp_path / "t")
    assert event.details["type"] == "OSError"


def test_a_second_try_after_a_failure_is_not_blamed_for_the_first(tmp_path):
    model = make("gpt2")
    try:
        raise MemoryError("the batch was too large")
    except MemoryError:
        train_until_it_dies(model, tmp_path / "t")
        p, optimizer = watched(model, tmp_path / "u")
        model(**batch("gpt2")).loss.backward()
        optimizer.step()
        p.close()
    assert not crashes(tmp_path / "t") and not crashes(tmp_path / "u")


SCRIPT = """
import sys
sys.path[:0] = {paths!r}
import torch, probe
from tiny_models import batch, make
model = make("gpt2")
optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
probe.attach(model, optimizer, endpoint=False, trace={trace!r}, every=1, budget=None)
for step in range(3):
    model(**batch("gpt2")).loss.backward()
    optimizer.step()
    optimizer.zero_grad()
{last}
"""


def outcome(tmp_path, last):
    text = SCRIPT.format(paths=sys.path, trace=str(tmp_path / "t"), last=last)
    done = subprocess.run([sys.executable, "-c", text], check=False, capture_output=True, text=True)
    return done, load(tmp_path / "t")


def test_one_line_is_enough_to_see_how_the_process_died(tmp_path):
    dies = "given = batch('gpt2'); given['input_ids'] += 100\nmodel(**given)"
    done, records = outcome(tmp_path, dies)
    assert done.returncode == 1 and done.stderr.rstrip().endswith("index out of range in self")
    (event,) = crashes(tmp_path / "t")
    assert event.details["site"] == "embedding"
    assert records[-1].reason == "the training process ended"


def test_an_exit_without_close_loses_nothing(tmp_path):
    done, records = outcome(tmp_path, "sys.exit(3)")
    assert done.returncode == 3 and "Traceback" not in done.stderr
    kinds = [type(r).__name__ for r in records]
    assert kinds.count("Frame") == 3 and kinds[-1] == "End"
    assert not crashes(tmp_path / "t")


def test_nothing_of_the_model_is_kept(tmp_path):
    model = make("gpt2")
    p, _ = watched(model, tmp_path / "t")
    alive = []

    def boom(module, args, out):
        alive.append(weakref.ref(out[0]))
        raise RuntimeError("here")

    def main():
        with pytest.raises(RuntimeError):
            model(**batch("gpt2"))

    model.transformer.h[1].attn.register_forward_hook(boom)
    main()
    gc.collect()
    assert len(alive) == 1 and alive[0]() is None
    p.close()
    assert len(crashes(tmp_path / "t")) == 1


def test_a_module_belongs_to_the_nearest_site_above_it():
    sites = (
        Site("qkv@0", "qkv", 0, modules=("h.0.attn", "h.0.attn.q")),
        Site("ffn@0", "ffn", 0, modules=("h.0.mlp",)),
    )
    assert site_of("h.0.attn.q", sites) == "qkv@0"
    assert site_of("h.0.mlp.act.inner", sites) == "ffn@0"
    assert site_of("h.0", sites) == "" and site_of("", sites) == ""
