import msgspec
import numpy as np
import pytest
import synthetic_runs

from diagnoser import graph, schema
from probe.schema import Site


def pairs(anatomy, mechanism=None):
    return {
        (edge.source, edge.target)
        for edge in graph.edges(anatomy)
        if mechanism in (None, edge.mechanism)
    }


def test_pre_norm_and_post_norm_join_their_norms_differently():
    post, pre = pairs(synthetic_runs.anatomy("bert")), pairs(synthetic_runs.anatomy("gpt2"))
    assert ("residual_attention@1", "norm_attention@1") in post - pre
    assert ("norm_attention@1", "qkv@1") in pre - post
    assert ("norm_ffn@0", "qkv@1") in pairs(synthetic_runs.anatomy("bert"), "M4")
    assert ("residual_ffn@0", "norm_attention@1") in pairs(synthetic_runs.anatomy("gpt2"), "M4")


def test_the_output_follows_the_final_norm_or_the_last_block():
    assert ("norm_final", "output") in pairs(synthetic_runs.anatomy("llama"))
    assert ("residual_ffn@2", "norm_final") in pairs(synthetic_runs.anatomy("llama"))
    assert ("norm_ffn@2", "output") in pairs(synthetic_runs.anatomy("bert"))


def test_rotary_positions_enter_at_every_score_and_learned_ones_at_the_first_projection():
    rotary = pairs(synthetic_runs.anatomy("llama"))
    learned = pairs(synthetic_runs.anatomy("gpt2"))
    assert {("positional", f"score@{layer}") for layer in range(3)} <= rotary
    assert ("positional", "qkv@0") in learned - rotary


def test_only_decoders_have_cache_edges():
    assert ("kv_cache@1", "attention@1") in pairs(synthetic_runs.anatomy("gpt2"), "M7")
    assert not pairs(synthetic_runs.anatomy("bert"), "M7")


@pytest.mark.parametrize("layers", [1, 2, 24])
@pytest.mark.parametrize("family", synthetic_runs.FAMILIES)
def test_a_fault_in_the_first_layer_reaches_the_output_at_any_depth(family, layers):
    anatomy = synthetic_runs.anatomy(family, layers)
    names = {site.name for site in anatomy.sites}
    found = pairs(anatomy)
    assert all(source in names and target in names for source, target in found)
    reached = {"qkv@0"}
    for _ in range(len(names)):
        reached |= {target for source, target in found if source in reached}
    assert "output" in reached
    assert f"ffn@{layers - 1}" in reached
    assert "embedding" not in reached


def test_softmax_and_norms_limit_what_passes():
    limits = {(e.source, e.target): e.limiter for e in graph.edges(synthetic_runs.anatomy("bert"))}
    assert limits["mask@0", "attention@0"] == "softmax"
    assert limits["residual_attention@0", "norm_attention@0"] == "layer norm"


def test_missing_sites_give_no_edges():
    full = synthetic_runs.anatomy("bert")
    without = tuple(site for site in full.sites if site.node != "mask")
    assert all(
        "mask" not in "".join(p) for p in pairs(msgspec.structs.replace(full, sites=without))
    )


def test_an_unknown_norm_order_is_read_off_the_final_norm():
    pre = msgspec.structs.replace(synthetic_runs.anatomy("gpt2"), norm_order="unknown")
    assert graph.norm_order(pre) == "pre"
    post = msgspec.structs.replace(synthetic_runs.anatomy("bert"), norm_order="unknown")
    assert graph.norm_order(post) == "post"


def test_cross_attention_reads_the_encoders_output():
    sites = [Site("encoder.embedding", "embedding", stack="encoder")]
    for stack in ("encoder", "decoder"):
        for node in ("qkv", "attention", "residual_attention", "ffn", "residual_ffn"):
            sites.append(Site(f"{stack}.{node}@0", node, 0, stack))
    sites.append(Site("decoder.cross_qkv@0", "cross_qkv", 0, "decoder"))
    sites.append(Site("decoder.cross_attention@0", "cross_attention", 0, "decoder"))
    anatomy = msgspec.structs.replace(
        synthetic_runs.anatomy("gpt2"), kind="encoder-decoder", sites=tuple(sites)
    )
    found = pairs(anatomy)
    assert ("encoder.residual_ffn@0", "decoder.cross_qkv@0") in found
    assert ("decoder.cross_qkv@0", "decoder.cross_attention@0") in found


def test_arrays_hold_every_edge_in_both_directions():
    anatomy = synthetic_runs.anatomy("llama")
    built = graph.build(anatomy, schema.node_kinds())
    forward = len(graph.edges(anatomy))
    assert built.edge_index.shape == (2, 2 * forward)
    assert np.array_equal(built.edge_index[:, :forward], built.edge_index[::-1, forward:])
    names = built.names
    shown = {(names[a], names[b]) for a, b in built.edge_index[:, :forward].T}
    assert shown == pairs(anatomy)
    assert built.counts.sum() == len(anatomy.sites)


def test_torch_geometric_data_keeps_every_typed_edge():
    anatomy = synthetic_runs.anatomy("gpt2")
    built = graph.build(anatomy, schema.node_kinds())
    features = {kind: np.zeros((len(built.sites[kind]), 3), np.float32) for kind in built.kinds}
    data = graph.to_hetero(anatomy, features)
    assert sum(store.num_edges for store in data.edge_stores) == built.edge_index.shape[1]
    assert ("attention", "M1", "residual_attention") in data.edge_types
    assert data.validate()
    with pytest.raises(ValueError, match="qkv"):
        graph.to_hetero(anatomy, {**features, "qkv": np.zeros((1, 3), np.float32)})
