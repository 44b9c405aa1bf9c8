"""Faults that break the same contract and have other causes, told apart on a training model."""

from __future__ import annotations

import pytest
import torch
from fault_observations import batch, model_of, optimizer_of

import probe
from diagnoser.columns import Columns
from diagnoser.contracts import ContractWatch
from diagnoser.faults import OPERATORS, Fault, inject
from probe.schema import Frame, Header
from probe.trace import load

NEVER = 100


def first_cause(
    trace, family: str, code: str, value=None, begin: int = 0, clip: float | None = None
):
    """What the first broken contract speaks for, after eight sampled steps of a training whose
    fault begins at step ``begin``; None where none is broken."""
    model = model_of(family)
    optimizer = optimizer_of(model)
    operator = OPERATORS[code]
    layers = (0,) if operator.layered else ()
    fault = Fault(
        code, operator.category, operator.root_cause, layers, operator.parameter, value, 0
    )

    def train(count: int) -> None:
        for _ in range(count):
            model(**batch(family)).loss.backward()
            if clip is not None:
                torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
            optimizer.step()
            optimizer.zero_grad()

    torch.manual_seed(3)
    with probe.attach(model, optimizer, endpoint=False, every=1, budget=None, trace=trace):
        train(min(begin, 8))
        if begin < 8:
            with inject(model, optimizer, fault):
                train(8 - begin)
    watch = None
    for record in load(trace):
        if isinstance(record, Header):
            columns = Columns(record)
            watch = ContractWatch(columns) if watch is None else watch
            watch.rebind(columns)
        elif isinstance(record, Frame):
            watch.update(record)
    firings = watch.firings()
    return firings[0].causes[0] if firings else None


@pytest.mark.parametrize(
    ("family", "code", "value"),
    [
        ("llama", "PSQ", 8),
        ("llama", "PSQ", 2),
        ("gpt2", "PSQ", 4),
        ("llama", "POB", None),
        ("gpt2", "POB", None),
        ("llama", "PTL", 8),
        ("llama", "PRV", None),
        ("llama", "VWN", 4),
        ("bert", "VWN", 4),
        ("bert", "VPX", 0.25),
        ("bert", "VEC", None),
        ("bert", "MSD", "other_side"),
        ("gpt2", "MSD", "other_side"),
        ("bert", "MSD", "strict_diagonal"),
        ("gpt2", "MCB", 0.3),
        ("gpt2", "OST", None),
        ("llama", "OST", None),
        ("gpt2", "OZR", "rare"),
        ("llama", "RSS", 0.9),
        ("bert", "RSS", 0.5),
        ("llama", "RWS", None),
        ("bert", "RGV", 0.01),
    ],
)
def test_the_cause_is_that_of_the_fault(family, code, value, tmp_path):
    operator = OPERATORS[code]
    wanted = f"{operator.category}/{operator.root_cause}"
    assert first_cause(tmp_path / "t", family, code, value) == wanted


@pytest.mark.parametrize(
    ("code", "value", "clip", "cause"),
    [
        ("RGC", 10.0, 0.5, "residual/gradient_clipping"),
        ("NZG", None, None, "layernorm/scale_parameter"),
        ("ORI", "kaiming", None, "output/output_type"),
        ("NLP", 0.1, 0.5, "layernorm/regularization"),
    ],
)
def test_what_changes_within_a_run_is_told_from_before(code, value, clip, cause, tmp_path):
    assert first_cause(tmp_path / "t", "llama", code, value, 4, clip) == cause


@pytest.mark.parametrize("clip", [None, 0.5])
@pytest.mark.parametrize("family", ["bert", "gpt2", "llama"])
def test_without_a_fault_nothing_is_told(family, clip, tmp_path):
    assert first_cause(tmp_path / "t", family, "NZG", None, NEVER, clip) is None
