"""Whether wrong embeddings are wrong in some dimensions of all tokens or in all of some tokens."""

from __future__ import annotations

import pytest
import torch
from more_models import make as make_more
from tiny_models import Seen, make

import probe


def seen_of(trace, change) -> Seen:
    model = make("gpt2", dropout=0.0)
    table = model.transformer.wte
    look_up = table.forward
    table.forward = lambda ids: change(look_up(ids))
    return trained(model, trace)


def trained(model, trace) -> Seen:
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    ids = torch.randint(1, 100, (4, 16), generator=torch.Generator().manual_seed(0))
    with probe.attach(model, optimizer, trace=trace, endpoint=False, every=1):
        for _ in range(4):
            model(input_ids=ids, labels=ids).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    return Seen(trace)


def dims_copied(out: torch.Tensor) -> torch.Tensor:
    return torch.cat([out[..., :24], out[..., :8]], dim=-1)


def later_half_shifted(out: torch.Tensor) -> torch.Tensor:
    return torch.cat([out[:, :8], out[:, 8:] + 1.0], dim=1)


@pytest.mark.parametrize(
    ("change", "rows", "dims"),
    [(lambda out: out, 0.0, 0.0), (dims_copied, 1.0, 0.25), (later_half_shifted, 0.5, 1.0)],
)
def test_rows_and_dims_are_told_apart(change, rows, dims, tmp_path):
    seen = seen_of(tmp_path / "t", change)
    assert seen["embedding/wrong_rows"] == pytest.approx(rows)
    assert seen["embedding/wrong_dims"] == pytest.approx(dims)


@pytest.mark.parametrize("family", ["gemma2", "gemma3"])
def test_a_lookup_that_scales_its_rows_is_known(family, tmp_path):
    model = make_more(family)
    table = model.get_input_embeddings()
    assert float(table.embed_scale) != 1.0
    found = trained(model, tmp_path / "t")
    assert (found["embedding/lookup_error"] == 0).all()


def test_half_of_the_rows_may_be_small(tmp_path):
    model = make("gpt2", dropout=0.0)
    with torch.no_grad():
        model.transformer.wte.weight[::2] *= 0.1
    share = trained(model, tmp_path / "t")["embedding/small_rows"]
    assert 0.3 < share[0] < 0.7
