"""Decoders whose rows hold a token or two, as where T5 is taught to answer with a class."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from family_grid import over
from family_models import make
from tiny_models import Seen

import probe


def _run(trace, rows: int, wrong: float | None = None, length: int = 2) -> Seen:
    model = make("t5", dropout=0.1)
    if wrong is not None:
        for block in model.decoder.block:
            block.layer[-1].dropout.p = wrong
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    torch.manual_seed(4)
    with probe.attach(model, optimizer, endpoint=False, every=1, budget=None, trace=trace):
        for _ in range(8):
            ids, labels = torch.randint(5, 100, (rows, 20)), torch.randint(5, 100, (rows, length))
            model(input_ids=ids, labels=labels).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    return Seen(trace)


def _gaps(seen: Seen) -> dict[str, float]:
    """Share of the frames in which dropout is far from the config's, by site."""
    columns = [c for c in seen.header.columns if c.metric == "dropout_gap" and "resid" in c.site]
    return {c.site: float((abs(seen[c.key]) > 0.05).mean()) for c in columns}


def test_chance_is_no_other_dropout(tmp_path):
    found = _gaps(_run(tmp_path / "t", 1))
    assert len(found) == 15 and max(found.values()) == 0.0


@pytest.mark.parametrize("wrong", [0.0, 0.5])
def test_another_dropout_shows_in_short_rows_too(wrong, tmp_path):
    seen = _run(tmp_path / "t", 4, wrong)
    assert {site for site, share in _gaps(seen).items() if share > 0.5} == {
        f"decoder.residual_ffn@{at}" for at in range(3)
    }
    assert np.sign(seen["decoder.residual_ffn@1/dropout_gap"]).mean() == (-1 if wrong == 0 else 1)


def test_a_token_by_itself_moves_neither_queries_nor_keys(tmp_path):
    """Softmax over one key is 1, whatever the weights that make it."""
    seen = _run(tmp_path / "t", 4, length=1)
    assert not [key for key in over(seen) if key.endswith("/unmoved")]
    assert (seen["decoder.cross_qkv@1/unmoved"] == 0).all()
