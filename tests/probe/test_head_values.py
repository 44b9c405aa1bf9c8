"""What is measured of single heads: the layer's metric of each, and the head at fault by itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny_models import Seen, make, train

from probe.catalogue import METRICS, head_columns
from probe.schema import Site

PER_HEAD = [(m.name, node) for m in METRICS if m.per_head for node in m.nodes]


@pytest.fixture(scope="module", params=["bert", "llama"])
def seen(request, tmp_path_factory):
    trace = tmp_path_factory.mktemp("heads") / "t"
    train(make(request.param), request.param, 3, attach={"trace": trace})
    return Seen(trace)


def heads(seen: Seen, node: str, metric: str, layer: int = 1) -> np.ndarray:
    """(frames, heads)."""
    return np.stack([seen[f"{node}@{layer}.h{head}/{metric}"] for head in range(4)], axis=1)


def test_every_metric_of_heads_is_measured_where_the_layers_is(seen):
    for metric, node in PER_HEAD:
        of_layer, of_heads = seen[f"{node}@1/{metric}"], heads(seen, node, metric)
        assert np.isnan(of_heads).any(axis=1).tolist() == np.isnan(of_layer).tolist()
    keys = [column.key for column in seen.header.columns]
    assert "attention@1.h4/entropy" not in keys
    assert not any(".h" in site.name for site in seen.header.anatomy.sites)


@pytest.mark.parametrize(
    "metric", ["entropy", "max_weight", "output_norm", "effective_rank", "q_norm", "cos_qk"]
)
def test_the_layer_is_the_mean_of_its_heads(seen, metric):
    node = "qkv" if metric in ("q_norm", "cos_qk") else "attention"
    of_heads = heads(seen, node, metric)
    assert of_heads.mean(axis=1) == pytest.approx(seen[f"{node}@1/{metric}"], rel=1e-4, abs=1e-6)
    assert np.ptp(of_heads, axis=1).min() > 0


def test_the_scores_spread_and_peak_are_those_of_the_widest_head(seen):
    assert heads(seen, "score", "max").max(axis=1).tolist() == seen["score@1/max"].tolist()
    assert (heads(seen, "score", "std").min(axis=1) < seen["score@1/std"]).all()
    squares = (heads(seen, "score", "std") ** 2).mean(axis=1)
    # The heads' means lie close together here.
    assert np.sqrt(squares) == pytest.approx(seen["score@1/std"], rel=0.2)


def test_a_head_that_attends_to_padding_is_told_from_the_others(monkeypatch, tmp_path):
    kernel = F.scaled_dot_product_attention

    def leaky(query, key, value, attn_mask=None, **rest):
        shown = attn_mask.expand(-1, query.shape[1], -1, -1).clone()
        shown[:, 2] = True
        return kernel(query, key, value, attn_mask=shown, **rest)

    model = make("bert")
    attention = model.bert.encoder.layer[1].attention
    forward = attention.forward

    def with_leak(*args, **kwargs):
        with monkeypatch.context() as patch:
            patch.setattr(torch.nn.functional, "scaled_dot_product_attention", leaky)
            return forward(*args, **kwargs)

    attention.forward = with_leak
    train(model, "bert", 2, attach={"trace": tmp_path / "t"})
    found = Seen(tmp_path / "t")
    mass = heads(found, "mask", "padding_mass")
    assert (mass[:, 2] > 0.05).all()
    assert mass[:, [0, 1, 3]].max() == 0.0
    assert mass.mean(axis=1) == pytest.approx(found["mask@1/padding_mass"], rel=1e-5)
    assert heads(found, "mask", "padding_mass", layer=0).max() == 0.0


def test_heads_are_told_only_of_layers_that_were_seen_and_while_they_are_not_too_many():
    sites = (Site("attention@0", "attention", 0), Site("decoder.score@1", "score", 1, "decoder"))
    columns = head_columns(sites, {("", 0): 2, ("decoder", 1): 1, ("", 1): 7})
    keys = [column.key for column in columns]
    assert keys[:2] == ["attention@0.h0/entropy", "attention@0.h1/entropy"]
    assert keys[-2:] == ["decoder.score@1.h0/std", "decoder.score@1.h0/max"]
    assert head_columns(sites, {("", 0): 100_000}) == ()
