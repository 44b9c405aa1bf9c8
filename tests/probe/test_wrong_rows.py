"""Whether wrong embeddings are wrong in some dimensions of all tokens or in all of some tokens."""

from __future__ import annotations

import pytest
import torch
from tiny_models import Seen, make

import probe


def seen_of(trace, change) -> Seen:
    model = make("gpt2", dropout=0.0)
    table = model.transformer.wte
    look_up = table.forward
    table.forward = lambda ids: change(look_up(ids))
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
