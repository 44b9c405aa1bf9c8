"""Columns of single heads change nothing for the diagnosis: its nodes are whole components."""

import msgspec
import numpy as np
import pytest
import synthetic_runs

from diagnoser import graph, schema
from diagnoser.columns import Columns
from diagnoser.diagnosis import to_json
from diagnoser.engine import Engine, EngineError
from probe.catalogue import head_columns
from probe.schema import Column, decode_record, encode


def with_heads(header, frames):
    """The run with wild values of four heads a layer, between the columns of the components."""
    heads = head_columns(header.anatomy.sites, dict.fromkeys([("", at) for at in range(3)], 4))
    random = np.random.default_rng(3)
    order = random.permutation(len(header.columns) + len(heads))
    columns = header.columns + heads
    wide = msgspec.structs.replace(header, columns=tuple(columns[at] for at in order))
    values = [
        np.concatenate([frame.array, 1e6 * random.normal(size=len(heads))])[order]
        for frame in frames
    ]
    return wide, [
        msgspec.structs.replace(frame, values=found.astype("<f4").tobytes())
        for frame, found in zip(frames, values, strict=True)
    ]


def test_the_diagnosis_is_the_same_with_and_without_them(trained):
    header = synthetic_runs.header("bert", 3)
    frames = synthetic_runs.frames(header, 24, 901, "masking/mask_application", 2, start=100)
    wide, wide_frames = with_heads(header, frames)
    one, two = Engine(header, trained), Engine(wide, trained)
    for frame, wide_frame in zip(frames, wide_frames, strict=True):
        assert to_json(one.update(frame)) == to_json(two.update(wide_frame))
    assert two.diagnosis.verdict == "faulty"


def test_they_are_no_nodes_and_no_features():
    header = synthetic_runs.header("gpt2", 3)
    wide, (frame,) = with_heads(header, synthetic_runs.frames(header, 1))
    columns = Columns(wide)
    assert sorted(columns.keys) == sorted(Columns(header).keys)
    assert columns.graph == graph.build(header.anatomy, schema.node_kinds())
    assert len(columns.values(frame)) == len(header.columns) < len(wide.columns)


def test_a_run_may_gain_them_under_a_later_header(trained):
    header = synthetic_runs.header("bert", 3)
    frames = synthetic_runs.frames(header, 24, 901, "masking/mask_application", 2, start=100)
    wide, wide_frames = with_heads(header, frames)
    engine, plain = Engine(header, trained), Engine(header, trained)
    for frame in frames[:12]:
        engine.update(frame)
        plain.update(frame)
    engine.rebind(msgspec.structs.replace(wide, revision=1))
    for frame, wide_frame in zip(frames[12:], wide_frames[12:], strict=True):
        assert to_json(engine.update(wide_frame)) == to_json(plain.update(frame))
    with pytest.raises(EngineError, match=f"{len(wide.columns)} columns"):
        engine.update(frames[-1])


def test_a_trace_of_before_still_reads():
    header = synthetic_runs.header("bert", 3)
    plain = msgspec.msgpack.decode(encode(header))
    for metric in plain["metrics"]:
        del metric["per_head"]
    read = decode_record(msgspec.msgpack.encode(plain))
    assert not any(metric.per_head for metric in read.metrics)
    assert Columns(read).keys == Columns(header).keys


def test_the_corpus_compares_them_too(tmp_path):
    from diagnoser.corpus.comparison import _compared

    header = synthetic_runs.header("bert", 3)
    head = Column("attention@1.h2", "entropy")
    wide = msgspec.structs.replace(header, columns=(*header.columns, head))
    assert (len(header.columns), head.key) in _compared(wide)
