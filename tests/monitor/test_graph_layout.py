from dataclasses import asdict

import msgspec

from diagnoser.graph import edges
from monitor.charts.line import text_of, width_of
from monitor.sources.fake import anatomy
from monitor.widgets.graph_drawing import GraphDrawing
from monitor.widgets.graph_layout import block_order, lay_out, suspected_path
from probe.schema import Site


def targets(found):
    table = {}
    for edge in edges(found):
        table.setdefault(edge.source, []).append(edge.target)
    return {source: tuple(ends) for source, ends in table.items()}


def drawn(found, suspicion=None, width=38, height=31):
    suspicion = suspicion or {}
    path = suspected_path(targets(found), suspicion)
    return [text_of(line) for line in GraphDrawing(
        lay_out(found), suspicion, path, width, height).draw()]  # fmt: skip


def test_rows_follow_the_data():
    layout = lay_out(anatomy())
    (stack,) = layout.stacks
    assert [row.node for row in stack.before] == ["embedding", "positional"]
    assert [row.node for row in stack.block] == [
        "qkv", "score", "mask", "attention", "residual_attention", "norm_attention", "ffn",
        "residual_ffn", "norm_ffn",
    ]  # fmt: skip
    assert [row.node for row in stack.after] == ["output"]
    assert {row.node for row in layout.contexts} == {"drift", "training", "validation"}
    assert stack.layers == (0, 1, 2, 3)


def test_norms_come_first_where_they_do():
    assert block_order("pre")[0] == "norm_attention"
    assert block_order("post")[-1] == "norm_ffn"
    assert set(block_order("pre")) == set(block_order("post"))


def test_kinds_never_heard_of_are_drawn_too():
    found = anatomy()
    found = msgspec.structs.replace(found, sites=(*found.sites, Site("adapter@1", "adapter", 1)))
    assert any(line.startswith(" adapter") for line in drawn(found))


def test_an_encoder_decoder_has_two_stacks():
    base = anatomy(2)
    sites = [Site("embedding", "embedding"), Site("output", "output")]
    for stack in ("encoder", "decoder"):
        sites += [
            Site(f"{stack}.{node}@{layer}", node, layer, stack)
            for layer in (0, 1)
            for node in ("qkv", "attention", "ffn")
        ]
    sites.append(Site("decoder.cross_mask@0", "cross_mask", 0, "decoder"))
    layout = lay_out(msgspec.structs.replace(base, sites=tuple(sites)))
    assert [stack.name for stack in layout.stacks] == ["encoder", "decoder"]
    assert "cross_mask" in [row.node for row in layout.stacks[1].block]
    everything = [
        site
        for stack in layout.stacks
        for row in (*stack.before, *stack.block, *stack.after)
        for site in row.sites.values()
    ]
    assert sorted(everything) == sorted(site.name for site in sites)
    assert asdict(layout)["contexts"] == ()


def test_the_path_starts_at_the_origin_and_follows_the_edges():
    suspicion = {"mask@2": 0.9, "attention@2": 0.7, "residual_attention@2": 0.4, "qkv@0": 0.5,
                 "ffn@2": 0.01}  # fmt: skip
    path = suspected_path(targets(anatomy()), suspicion)
    assert path == ("mask@2", "attention@2", "residual_attention@2")
    assert suspected_path({}, {}) == ()
    assert suspected_path({}, {"qkv@0": 0.0}) == ()


def test_suspicion_is_told_by_digit_and_the_origin_by_an_arrow():
    lines = drawn(anatomy(), {"mask@2": 0.96, "attention@2": 0.71, "score@2": 0.04})
    mask = next(line for line in lines if line.startswith(" mask"))
    attention = next(line for line in lines if line.startswith(" attention"))
    assert "▶9" in mask
    assert "7" in attention
    assert mask.index("9") == attention.index("7")
    between = lines[lines.index(mask) + 1]
    assert between[mask.index("9")] == "┃"
    score = next(line for line in lines if line.startswith(" score"))
    assert not any(character.isdigit() for character in score)


def test_nothing_is_marked_without_suspicion():
    text = "\n".join(drawn(anatomy()))
    assert "▶" not in text
    assert "┃" not in text


def test_it_fits_every_size_and_depth():
    for layers in (1, 2, 12, 48, 130):
        for width, height in ((28, 17), (28, 10), (38, 31), (66, 48)):
            suspicion = {f"mask@{layers - 1}": 0.9}
            found = anatomy(layers)
            path = suspected_path(targets(found), suspicion)
            lines = GraphDrawing(lay_out(found), suspicion, path, width, height).draw()
            assert len(lines) <= height
            assert {width_of(line) for line in lines} == {width}
            if height >= 17:
                assert any("9" in text_of(line) and "mask" in text_of(line) for line in lines)
