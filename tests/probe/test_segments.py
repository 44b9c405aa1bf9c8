"""Segment embeddings are read where they are looked up and where they enter the embeddings' sum."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_models import Seen, make, train

STEPS = 3


def type_scale(tmp_path, enter, autocast=False):
    """``enter``: what the model makes of its segment embeddings behind the lookup."""
    torch.manual_seed(3)
    model = make("bert")
    embeddings = model.bert.embeddings
    lookup = embeddings.token_type_embeddings
    # Found before the module of the same name, which stays where it is.
    vars(embeddings)["token_type_embeddings"] = lambda ids: enter(lookup(ids))
    train(model, "bert", STEPS, autocast=autocast, attach={"trace": tmp_path / "t"})
    return Seen(tmp_path / "t")["embedding/type_scale"]


@pytest.mark.parametrize("autocast", [False, True])
def test_segments_that_enter_once_have_no_scale(tmp_path, autocast):
    assert abs(type_scale(tmp_path, lambda out: out, autocast)).max() < 1e-4


@pytest.mark.parametrize("factor", [0.5, 2.0, 5.0])
def test_segments_are_scaled_behind_their_lookup(tmp_path, factor):
    scale = type_scale(tmp_path, lambda out: factor * out)
    assert scale == pytest.approx(np.log2(factor), abs=1e-3)


def test_a_sum_with_another_part_says_nothing_of_the_segments(tmp_path):
    noise = torch.randn(6, 28, 32, generator=torch.Generator().manual_seed(0))
    assert (type_scale(tmp_path, lambda out: 2.0 * out + 0.3 * noise) == 0.0).all()
