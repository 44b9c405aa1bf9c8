"""Metrics that DEFault++ names: activity of parameters, similarity of cached keys, validation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from family_faults import MADE_FOR
from family_grid import faulty
from tiny_models import Seen, make, train

import probe


def test_activity_is_the_share_of_parameters_with_a_gradient_to_speak_of(tmp_path):
    model = make("bert", 0.0)
    query = model.bert.encoder.layer[1].attention.self.query
    for parameter in query.parameters():
        parameter.register_hook(lambda gradient: gradient * 1e-9)
    train(model, "bert", 3, attach={"trace": tmp_path / "t"})
    seen = Seen(tmp_path / "t")
    # Of six: the key's bias, which softmax cancels, and here the query's two.
    assert seen["qkv@1/activity"] == pytest.approx(3 / 6)
    assert seen["qkv@0/activity"] == pytest.approx(5 / 6)
    assert seen["ffn@1/activity"].tolist() == [1.0] * 3


def test_cached_keys_point_the_way_of_fresh_ones_unless_the_cache_is_wrong(tmp_path):
    train(make("gpt2"), "gpt2", 2, attach={"trace": tmp_path / "t"})
    assert Seen(tmp_path / "t")["kv_cache@1/key_similarity"][0] == pytest.approx(1.0, abs=1e-5)
    broken = faulty("gpt2", MADE_FOR["kv_cache/key_error"][0], tmp_path / "broken")
    assert broken["kv_cache@1/key_similarity"][0] < 0.99


def test_results_of_a_validation_are_told_with_the_next_sample(tmp_path):
    model = make("gpt2")
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    ids = torch.randint(5, 100, (2, 12))
    options = {"endpoint": False, "every": 1, "budget": None, "trace": tmp_path / "t"}
    with probe.attach(model, optimizer, **options) as watching:
        for step in range(3):
            output = model(input_ids=ids, labels=ids)
            output.loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            if step == 0:
                error = probe.calibration_error(output.logits[:, :-1], ids[:, 1:])
                watching.validation(perplexity=12.5, calibration_error=error)
    seen = Seen(tmp_path / "t")
    assert seen["validation/perplexity"][1] == 12.5
    assert seen["validation/calibration_error"][1] == pytest.approx(error)
    assert np.isnan(seen["validation/perplexity"][[0, 2]]).all()
    assert seen.header.absent["validation/accuracy"] == "p.validation(accuracy=...) was not called"
