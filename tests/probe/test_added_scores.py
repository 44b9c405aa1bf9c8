"""Terms that are added to hand-written scores beside a mask are read, and are no fault."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from family_grid import over
from test_odd_models import HEADS, WIDTH, Interleaved, Model, run
from torch import nn

from probe.anatomy import find
from probe.capture import Capturing, batch_of
from probe.stopwatch import Stopwatch

LENGTH, SIZE = 40, WIDTH // HEADS


class Shaw(nn.Module):
    """Keys by distance, as in Shaw et al. (2018) and BERT's ``relative_key``; the softmax by hand.

    ``kind``: how the term is made; of ``largest`` a row's largest score is taken off as well.
    ``dropped``: dropout on the scores, which is a fault.
    """

    def __init__(self, kind: str = "einsum") -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.proj, self.kind, self.dropped = nn.Linear(WIDTH, WIDTH), kind, 0.0
        self.distance = nn.Embedding(2 * LENGTH - 1, HEADS if kind in ("bias", "largest") else SIZE)

    def term(self, q, k):
        n = q.shape[2]
        places = torch.arange(n)
        table = self.distance(places[:, None] - places[None, :] + LENGTH - 1)
        if self.kind in ("bias", "largest"):
            return table.permute(2, 0, 1)[None] * SIZE**0.5
        if self.kind == "both":
            of_keys = torch.einsum("bhrd,lrd->bhlr", k, table)
            return torch.einsum("bhld,lrd->bhlr", q, table) + of_keys
        if self.kind == "skewed":
            # As in the Music Transformer: products with each distance, moved to their places.
            made = q @ self.distance.weight[LENGTH - n : LENGTH].t()
            return F.pad(made, (1, 0)).view(*q.shape[:2], n + 1, n)[:, :, 1:]
        if self.kind == "by query":
            by_place = q.permute(2, 0, 1, 3).flatten(1, 2) @ table.transpose(1, 2)
            return by_place.view(n, *q.shape[:2], n).permute(1, 2, 0, 3)
        return torch.einsum("bhld,lrd->bhlr", q, table)

    def forward(self, x):
        b, n, _ = x.shape
        q, k, v = (
            layer(x).view(b, n, HEADS, SIZE).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        scores = (q @ k.transpose(-1, -2) + self.term(q, k)) * SIZE**-0.5
        scores = F.dropout(scores, self.dropped)
        scores = scores.masked_fill(torch.ones(n, n).triu(1).bool(), float("-inf"))
        if self.kind == "largest":
            scores = scores - scores.amax(dim=-1, keepdim=True)
        y = scores.softmax(dim=-1) @ v
        return self.proj(y.transpose(1, 2).reshape(b, n, -1))


@pytest.mark.parametrize("kind", ["einsum", "both", "bias", "largest", "skewed", "by query"])
def test_a_term_by_distance_is_no_fault(kind, tmp_path):
    torch.manual_seed(2)
    seen = run(Model(partial(Shaw, kind)), tmp_path / "t")
    assert over(seen) == {}
    if kind in ("skewed", "by query"):
        assert np.isnan(seen["score@1/input_error"]).all()
        assert "another product than that with the keys" in seen.header.absent["score/input_error"]
    else:
        assert seen["score@1/input_error"].max() < 1e-4
        assert abs(seen["score@1/scale_ratio"]).max() < 1e-3


@pytest.mark.parametrize("kind", ["both", "largest"])
def test_beside_such_a_term_a_fault_still_shows(kind, tmp_path):
    torch.manual_seed(2)
    model = Model(partial(Shaw, kind))
    model.blocks[1].attn.dropped = 0.2
    fired = over(run(model, tmp_path / "t"))
    assert {"score@1/input_error", "score@1/dropped"} <= set(fired)
    assert not {key for key in fired if key.startswith(("score@0", "score@2"))}


class OneMore(Interleaved):
    """Makes a product that has to do with no scores."""

    def forward(self, x):
        return super().forward(x) + x @ self.out.weight


def test_products_are_not_kept_beyond_their_attention():
    model = Model(OneMore)
    parts, given = find(model), {"idx": torch.randint(0, 60, (4, 24))}
    capturing = Capturing(parts, batch_of(parts, (), given), pytest.fail, Stopwatch())
    with torch.no_grad():
        model(**given)
    recorders = list(capturing._recorders.values())
    assert len(recorders) == 3 and all(recorder.count == 1 for recorder in recorders)
    assert not any(recorder._others or recorder._products for recorder in recorders)
    capturing.close()
