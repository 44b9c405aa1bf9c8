"""A training that dies by itself, from the exception to the sentence a person reads."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from training_processes import outcome

import probe
from diagnoser.crashes import read
from probe.schema import Event
from probe.trace import load

sys.path.append(str(Path(__file__).parents[1] / "probe"))
from tiny_models import batch, make


def died(model, path, given):
    """Train two steps, then a batch that kills it; the crash as recorded and as judged."""
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
    options = {"endpoint": False, "trace": path, "every": 1, "budget": None}
    family = "llama" if "llama" in type(model).__name__.lower() else "gpt2"
    with pytest.raises(Exception) as caught, probe.attach(model, optimizer, **options):
        for step in range(3):
            if step == 2:
                given(model)
            arguments = batch(family)
            if step == 2 and hasattr(given, "arguments"):
                given.arguments(arguments)
            model(**arguments).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    (event,) = [r for r in load(path) if isinstance(r, Event) and r.kind == "crash"]
    assert event.details["message"] == str(caught.value)
    return event, read(event)


def nothing(model):
    pass


def test_a_query_projection_of_another_size(tmp_path):
    def narrower(model):
        attention = model.model.layers[1].self_attn
        attention.k_proj = torch.nn.Linear(32, 24, bias=False)

    event, found = died(make("llama"), tmp_path / "t", narrower)
    assert event.details["module"].startswith("model.layers.1.self_attn")
    assert event.details["site"] == "qkv@1"
    assert (found.category, found.heuristic) == ("qkv", 1)


def test_a_mask_of_another_length(tmp_path):
    given = type("Given", (), {"__call__": staticmethod(nothing)})()

    def shorten(arguments):
        size, length = arguments["input_ids"].shape
        arguments["attention_mask"] = torch.zeros(size, 1, length, length - 3)

    given.arguments = shorten
    event, found = died(make("gpt2"), tmp_path / "t", given)
    assert "mask" in event.details["inputs"]
    assert (found.category, found.heuristic) == ("masking", 3)


def test_no_kernel_for_these_inputs(tmp_path, monkeypatch):
    def none(*_, **__):
        raise RuntimeError("No available kernel. Aborting execution.")

    event, found = died(
        make("gpt2"),
        tmp_path / "t",
        lambda model: monkeypatch.setattr(F, "scaled_dot_product_attention", none),
    )
    assert event.details["module"] == "transformer.h.0.attn"
    assert (found.category, found.heuristic) == ("kernel", 4)
    status, out, _ = outcome("diagnose", str(tmp_path / "t"))
    assert status == 2
    assert "died at step 2: RuntimeError in the forward" in out and "likely kernel" in out
