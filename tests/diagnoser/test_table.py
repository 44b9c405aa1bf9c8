"""The feature table: what is read is what was packed, and damage is told."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from diagnoser import extract, manifest, sources, table, train
from diagnoser.corpus import FIRST_FINAL_SEED
from diagnoser.corpus.__main__ import main
from diagnoser.dataset import load_samples
from diagnoser.manifest import CorpusError


@pytest.fixture(scope="module")
def corpus(synthetic_corpus):
    """Some clean and faulty runs of every family."""
    return replace(
        synthetic_corpus, runs=synthetic_corpus.runs[:: len(synthetic_corpus.runs) // 12]
    )


@pytest.fixture(scope="module")
def packed(corpus, tmp_path_factory):
    folder = tmp_path_factory.mktemp("table")
    table.pack(corpus, folder)
    return folder


def same(one, other) -> bool:
    return (
        (one.run, one.frame, one.faulty, one.category, one.cause)
        == (other.run, other.frame, other.faulty, other.category, other.cause)
        and one.nodes.keys() == other.nodes.keys()
        and all(np.array_equal(one.nodes[kind], other.nodes[kind]) for kind in one.nodes)
        and all(one.nodes[kind].dtype == other.nodes[kind].dtype for kind in one.nodes)
        and np.array_equal(one.fired, other.fired)
        and np.array_equal(one.origin, other.origin, equal_nan=True)
        and np.array_equal(one.graph.node_kind, other.graph.node_kind)
    )


def test_what_is_read_is_what_was_packed(corpus, packed):
    found, wanted = table.read(packed), load_samples(corpus)
    assert found.checksum == corpus.manifest.checksum
    assert found.runs == corpus.runs and {run.faulty for run in found.runs} == {True, False}
    assert len(found.samples()) == len(wanted) > 20
    assert all(same(one, other) for one, other in zip(found.samples(), wanted, strict=True))
    some = corpus.runs[3:5]
    assert [s.run for s in found.samples(some)] == [s.run for s in load_samples(corpus, some)]


def test_several_shards_are_one_table(corpus, packed, tmp_path, monkeypatch):
    monkeypatch.setattr(table, "RUNS_IN_A_SHARD", 5)
    index = table.pack(corpus, tmp_path / "t")
    assert len(index.shards) == -(-len(corpus.runs) // 5)
    assert sum(shard.runs for shard in index.shards) == len(corpus.runs)
    many, one = table.read(tmp_path / "t").samples(), table.read(packed).samples()
    assert all(same(left, right) for left, right in zip(many, one, strict=True))


def test_runs_are_added_in_shards_of_their_own(corpus, packed, tmp_path):
    folder = tmp_path / "t"
    first, second = (replace(corpus, runs=corpus.runs[at::2]) for at in (0, 1))
    table.pack(first, folder)
    shard = (folder / "shard-000.npz").read_bytes()
    index = table.pack(second, folder, add=True)
    assert (folder / "shard-000.npz").read_bytes() == shard and len(index.shards) == 2
    checksum = corpus.manifest.checksum
    found = table.read(folder)
    assert found.checksum == table.joined(checksum, checksum) != checksum
    assert found.runs == (*first.runs, *second.runs)
    whole = table.read(packed)
    assert all(
        same(one, other)
        for one, other in zip(found.samples(whole.runs), whole.samples(), strict=True)
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, "holds the run .* already"),
        ({"bits": 5}, "pass --bits 10"),
        ({"final": True}, "may not be in one table"),
    ],
)
def test_runs_that_do_not_fit_a_table_are_not_added(corpus, tmp_path, change, words):
    folder = tmp_path / "t"
    table.pack(replace(corpus, runs=corpus.runs[:2]), folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    runs = corpus.runs[1:]
    if change.get("final"):
        runs = [manifest.msgspec.structs.replace(corpus.runs[3], seed=FIRST_FINAL_SEED)]
    with pytest.raises(CorpusError, match=words):
        table.pack(
            replace(corpus, runs=tuple(runs)),
            folder,
            change.get("bits", 10),
            add=True,
        )
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_what_a_corpus_left_out_is_told_by_its_table(corpus, tmp_path):
    other = tmp_path / "corpus"
    shutil.copytree(corpus.manifest.folder, other)
    (other / "audit.jsonl").write_bytes(b'{"id": "one"}\n{"id": "two"}\n')
    moved = replace(corpus, manifest=replace(corpus.manifest, folder=other))
    folder = tmp_path / "t"
    table.pack(replace(moved, runs=corpus.runs[:2]), folder)
    (other / "audit.jsonl").write_bytes(b'{"id": "two"}\n{"id": "three"}\n')
    table.pack(replace(moved, runs=corpus.runs[2:4]), folder, add=True)
    found = table.read(folder)
    assert [json.loads(line)["id"] for line in found.audits] == ["one", "two", "three"]
    assert [json.loads(line)["id"] for line in found.lines] == [run.id for run in corpus.runs[:4]]


def test_a_table_and_a_corpus_are_learnt_from_as_one(corpus, packed, tmp_path):
    table.pack(replace(corpus, runs=corpus.runs[:4]), tmp_path / "t")
    others = replace(corpus, runs=corpus.runs[4:])
    one = sources.joined([sources.of_table(tmp_path / "t"), sources.of_corpus(others)])
    assert one.runs == corpus.runs
    assert one.checksum == table.joined(corpus.manifest.checksum, corpus.manifest.checksum)
    wanted = table.read(packed).samples(corpus.runs[2:6])
    found = one.samples(corpus.runs[2:6])
    assert all(same(left, right) for left, right in zip(found, wanted, strict=True))
    with pytest.raises(CorpusError, match="two of the corpora hold the run"):
        sources.load([tmp_path / "t", packed], workers=1)


def test_the_same_corpus_gives_the_same_bytes(corpus, packed, tmp_path):
    table.pack(corpus, tmp_path / "t")
    for path in packed.iterdir():
        assert (tmp_path / "t" / path.name).read_bytes() == path.read_bytes()


def test_fewer_bits_are_smaller_and_nearly_the_same(corpus, packed, tmp_path):
    small = table.pack(corpus, tmp_path / "t", bits=5)
    (full,) = json.loads((packed / "table.json").read_text())["shards"]
    assert small.shards[0].bytes < full["bytes"]
    pairs = zip(table.read(tmp_path / "t").samples(), table.read(packed).samples(), strict=True)
    for one, other in pairs:
        for kind, values in one.nodes.items():
            exact = other.nodes[kind].astype(np.float32)
            assert (np.abs(values - exact) <= 2.0**-6 * np.abs(exact) + 1e-6).all()


def test_rounding():
    values = np.array([0.0, -0.0, 1.0, 1.0 + 2**-7, -3.3, 65504.0, 6e-8, np.inf], np.float16)
    assert np.array_equal(table.rounded(values, 10), values)
    found = table.rounded(values, 4).astype(np.float64)
    assert found[:3].tolist() == [0.0, 0.0, 1.0] and found[3] == 1.0 and found[4] == -3.25
    assert np.isfinite(found[5]) and found[5] > 6e4 and np.isinf(found[7])


def test_a_table_is_written_once(corpus, packed):
    with pytest.raises(CorpusError, match="choose another folder, or add the runs to it"):
        table.pack(corpus, packed)


def test_damage_and_other_features_are_told(corpus, tmp_path):
    folder = tmp_path / "t"
    table.pack(corpus, folder)
    index = json.loads((folder / "table.json").read_text())
    (folder / "table.json").write_text(json.dumps(index | {"version": 1}))
    with pytest.raises(CorpusError, match="pack it again"):
        table.read(folder)
    (folder / "table.json").write_text(json.dumps(index))
    (described,) = folder.glob("layout-*.json")
    text = described.read_text()
    described.write_text(text.replace("future_mass/share/True/1e-05", "future_mass/share/True/0.5"))
    with pytest.raises(CorpusError, match=r"future_mass is .* pack it again"):
        table.read(folder)
    described.unlink()
    with pytest.raises(CorpusError, match="restore it"):
        table.read(folder)
    described.write_text(text)
    shard = folder / index["shards"][0]["file"]
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    with pytest.raises(CorpusError, match="not what was written there"):
        table.read(folder)
    shard.unlink()
    with pytest.raises(CorpusError, match="cannot be read"):
        table.read(folder)
    with pytest.raises(CorpusError, match="pack a corpus first"):
        table.read(tmp_path)


def test_training_learns_the_same_from_a_table(corpus, packed):
    from_traces = sources.load([corpus.manifest.folder], workers=1)
    from_table = sources.load([packed], workers=1)
    assert from_table.checksum == from_traces.checksum
    assert set(from_table.runs) < set(from_traces.runs)
    runs = from_table.runs[:4]
    left, right = from_traces.samples(runs), from_table.samples(runs)
    assert all(same(one, other) for one, other in zip(left, right, strict=True))


def test_the_command_packs(corpus, packed, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(extract, "extract_all", lambda manifest, workers: corpus)
    folder = corpus.manifest.folder
    where = ["--out", str(tmp_path / "t"), "--workers", "1"]
    assert main(["pack", str(folder), *where]) == 0
    assert f"{len(corpus.runs)} runs" in capsys.readouterr().out
    assert (tmp_path / "t" / "table.json").read_bytes() == (packed / "table.json").read_bytes()
    assert table.is_table(tmp_path / "t") and not table.is_table(folder)
    assert main(["pack", str(folder), *where]) == 3
    assert "choose another folder" in capsys.readouterr().err


def test_nothing_is_trained_on_the_final_hold_out(corpus, packed, tmp_path, monkeypatch):
    found = table.read(packed)
    held = manifest.msgspec.structs.replace(found.runs[0], seed=FIRST_FINAL_SEED)
    spoiled = replace(found, runs=(held, *found.runs[1:]))
    monkeypatch.setattr(sources.table, "read", lambda folder: spoiled)
    with pytest.raises(CorpusError, match="the final hold-out, which no weights may have seen"):
        sources.load([packed], workers=1)
    assert train.main(["--corpus", str(packed), "--out", str(tmp_path / "w")]) == 3
