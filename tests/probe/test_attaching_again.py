"""A second attach: to the same model anywhere, to one of the same name in a notebook."""

from __future__ import annotations

import sys
import types

import pytest
import torch
from tiny_models import batch, make, train

import probe
from probe import registry
from probe.trace import load


@pytest.fixture
def places(tmp_path, monkeypatch):
    monkeypatch.setenv("DEFAULTPP_RUNTIME_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("DEFAULTPP_STATE_DIR", str(tmp_path / "state"))
    return tmp_path


@pytest.fixture
def notebook(monkeypatch, places):
    """``notebook(text)`` runs a cell at the top level of the main module."""
    shell = types.SimpleNamespace(execution_count=0)
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: shell))
    main = types.ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", main)
    vars(main).update(probe=probe, torch=torch, make=make, batch=batch)

    def run(text):
        shell.execution_count += 1
        exec(text, vars(main))
        return main

    yield run
    for value in list(vars(main).values()):
        if isinstance(value, probe.Probe):
            value.close()


def hooks(model, optimizer):
    own = [model._forward_hooks, model._forward_pre_hooks]
    steps = [optimizer._optimizer_step_pre_hooks, optimizer._optimizer_step_post_hooks]
    return [len(found) for found in own + steps]


def listed():
    return sorted(entry.run for entry in registry.list_runs())


@pytest.mark.works_with("Scripts and notebooks", "notebook, a cell run again")
def test_the_same_model_twice_has_one_probe(places):
    model = make("gpt2")
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
    one = probe.attach(model, optimizer, every=1, budget=None, trace=places / "one")
    assert one._publisher.wait_opened(30)
    before, sockets = hooks(model, optimizer), one._publisher.entry
    with probe.attach(model, optimizer, every=1, budget=None, trace=places / "two") as two:
        assert two._publisher.wait_opened(30)
        assert hooks(model, optimizer) == before == [1, 1, 1, 1]
        assert not one.running and listed() == [two.run]
        for endpoint in (sockets.publish, sockets.control):
            assert not (places / endpoint.removeprefix("ipc://")).exists()
        train(model, "gpt2", 3, optimizer=optimizer)
    assert load(places / "one")[-1].reason == "attached again"
    frames = [r for r in load(places / "two") if type(r).__name__ == "Frame"]
    assert [frame.step for frame in frames] == [0, 1, 2]


def test_a_wrapped_model_is_the_same_model(places):
    model = make("gpt2")
    one = probe.attach(model, None, endpoint=False, trace=False)
    with probe.attach(torch.nn.DataParallel(model), None, endpoint=False, trace=False):
        assert not one.running


ATTACH = "p = probe.attach(model, torch.optim.SGD(model.parameters(), lr=1e-2), trace=False)"


@pytest.mark.works_with("Scripts and notebooks", "notebook, a cell run again")
def test_a_cell_run_again_with_a_new_model_of_the_same_name(notebook):
    first = notebook(f"model = make('gpt2'); {ATTACH}; kept = [model]").p
    second = notebook(f"model = make('gpt2'); {ATTACH}").p
    assert second._publisher.wait_opened(30)
    assert not first.running and second.running and listed() == [second.run]


@pytest.mark.works_with("Scripts and notebooks", "notebook, a cell run again")
def test_a_cell_run_again_under_the_runs_name(notebook):
    cell = "p = probe.attach(make('gpt2'), None, run='mine', trace=False)"
    first = notebook(cell).p
    assert notebook(cell).p.running and not first.running


def test_models_of_other_names_and_of_one_cell_keep_their_probes(notebook):
    first = notebook(f"model = make('gpt2'); {ATTACH}").p
    student = notebook("student = make('gpt2'); q = probe.attach(student, None, trace=False)").q
    assert first.running and student.running
    cell = "found = []\nfor _ in range(2):\n    one = make('gpt2')\n"
    both = notebook(f"{cell}    found.append(probe.attach(one, None, trace=False))").found
    assert all(p.running for p in both)
    for p in both:
        p.close()


def test_a_script_may_watch_several_models_under_one_name(places):
    one, two = (
        probe.attach(make("gpt2"), None, run="mine", endpoint=False, trace=False) for _ in range(2)
    )
    assert one.running and two.running
    one.close()
    two.close()


def test_a_resumed_training_goes_on_counting(places):
    model = make("bert")
    options = {"first_step": 40, "trace": places / "t", "every": 1, "budget": None}
    train(model, "bert", 3, attach=options)
    frames = [r for r in load(places / "t") if type(r).__name__ == "Frame"]
    assert [frame.step for frame in frames] == [40, 41, 42]
    with pytest.raises(ValueError, match="first_step"):
        probe.attach(model, None, first_step=-1)
