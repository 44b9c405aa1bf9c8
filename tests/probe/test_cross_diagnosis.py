"""A fault in attention over the encoder's states is diagnosed there, by the shipped weights."""

from __future__ import annotations

import pytest
import torch
from crossing_faults import Crossed, padding_shown
from crossing_models import batch, loss_of, make
from fault_target import target
from tiny_models import Seen

import probe
from diagnoser import graph, schema
from diagnoser.engine import Engine
from monitor.run_model import RunModel
from monitor.sources.source import Batch
from monitor.widgets.graph_layout import lay_out


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """BART, whose layer 1 loses the encoder's padding mask before step 4."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    model = make("bart", 0.1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    found = target(model, batch("bart"), optimizer)
    trace = tmp_path_factory.mktemp("crossed") / "t"
    torch.manual_seed(7)
    with probe.attach(
        model, optimizer, endpoint=False, every=1, budget=None, trace=trace
    ) as watching:
        for step in range(10):
            if step == 4:
                padding_shown(Crossed(found.model, found.parts, optimizer))
            loss = loss_of(model, batch("bart"))
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            watching.log(loss=loss)
    torch.set_num_threads(threads)
    return Seen(trace)


def test_a_lost_padding_mask_is_named_with_its_layer_and_module(run):
    engine = Engine(run.header)
    found = [engine.update(frame) for frame in run.frames]
    assert {d.verdict for d in found[:4]} <= {"insufficient", "healthy"}
    last = found[-1]
    assert (last.verdict, last.category, last.layers) == ("faulty", "masking", (1,))
    assert last.evidence[0].site == "decoder.cross_mask@1"
    assert last.evidence[0].text.startswith("At decoder.cross_mask@1 real tokens put ")
    assert last.evidence[0].since_step == 4
    assert last.suspicion["decoder.cross_mask@1"] >= 0.95
    site = run.header.anatomy.site("decoder.cross_mask@1")
    assert site.modules[0] == "model.decoder.layers.1.encoder_attn"


def test_cross_attention_stands_in_the_graph_like_another_layer_of_attention(run):
    built = graph.build(run.header.anatomy, schema.node_kinds())
    assert "decoder.cross_mask@1" in built.sites["mask"]
    assert "decoder.norm_cross@1" in built.sites["norm_attention"]
    assert built.counts.sum() == len(run.header.anatomy.sites)
    pairs = {(edge.source, edge.target) for edge in graph.edges(run.header.anatomy)}
    for at in (0, 1):
        assert ("encoder.norm_ffn@1", f"decoder.cross_qkv@{at}") in pairs
        assert (f"decoder.residual_cross@{at}", f"decoder.norm_cross@{at}") in pairs
        assert (f"decoder.norm_cross@{at}", f"decoder.ffn@{at}") in pairs


def test_the_monitor_draws_and_lists_it(run):
    rows = {row.label for row in lay_out(run.header.anatomy).stacks[1].block}
    assert {"cross qkv", "cross mask", "cross att."} <= rows
    model = RunModel()
    model.take(Batch(records=tuple(run.records)))
    group = model.groups["decoder.cross_mask/leaked"]
    assert group.metric is not None and group.metric.contract and len(group.members) == 2
    assert model.measured(group.key)
