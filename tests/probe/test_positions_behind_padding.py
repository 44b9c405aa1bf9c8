"""Padding on the left, and positions that count it: a mistake where a causal model has learned
them, for generation counts from the first real token; no matter elsewhere."""

from __future__ import annotations

import pytest
import torch
from family_grid import over
from family_models import batch, make
from more_models import make as make_more
from tiny_models import Seen

import probe


def _run(trace, model, shape: str, padding: str, positions: bool) -> Seen:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    torch.manual_seed(3)
    with probe.attach(model, optimizer, endpoint=False, every=1, budget=None, trace=trace):
        for _ in range(3):
            given = batch(shape, padding)
            if not positions:
                given.pop("position_ids", None)
            model(**given).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    return Seen(trace)


def test_padding_that_is_counted_is_told(tmp_path):
    seen = _run(tmp_path / "t", make("gpt2"), "gpt2", "left", positions=False)
    assert set(over(seen)) == {"positional/index_error", "positional/offset"}
    # Of the three rows that are looked at, one is padded by 16: 7 of its 16 places are tokens.
    assert seen["positional/offset"] == pytest.approx(16 * 7 / (7 + 16 + 16))


@pytest.mark.parametrize(
    ("family", "padding", "positions"),
    [
        ("gpt2", "left", True), ("gpt2", "right", False), ("gpt2", "none", False),
        ("llama", "left", False), ("bert", "left", False),
    ],
)  # fmt: skip
def test_elsewhere_nothing_is(family, padding, positions, tmp_path):
    assert over(_run(tmp_path / "t", make(family), family, padding, positions)) == {}


def test_a_model_that_counts_real_tokens_by_itself_is_healthy(tmp_path):
    seen = _run(tmp_path / "t", make_more("opt"), "gpt2", "left", positions=False)
    assert over(seen) == {}
    assert (seen["positional/index_error"] == 0).all()


def test_an_index_that_is_off_behind_padding_is_told_in_such_a_model(tmp_path):
    model = make_more("opt")
    model.model.decoder.embed_positions.offset = 5
    seen = _run(tmp_path / "t", model, "gpt2", "left", positions=False)
    assert seen["positional/index_error"].min() == 1.0
