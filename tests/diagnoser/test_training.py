import numpy as np
import pytest
import synthetic_runs

from diagnoser import evaluate, manifest, train, weights
from diagnoser.dataset import load_samples, moments, origin_labels
from diagnoser.extract import extract_all, read_cached
from diagnoser.figures import figures, wilson
from diagnoser.fitting import split_validation
from diagnoser.report import BEGIN, write_between


def test_frames_before_the_start_teach_health_and_those_after_the_fault(synthetic_corpus):
    run = next(r for r in synthetic_corpus.runs if r.faulty and r.start_step)
    found = synthetic_corpus.features(run)
    for frame, faulty in moments(run, found):
        assert faulty == (found.steps[frame] >= run.start_step)
    clean = next(r for r in synthetic_corpus.runs if not r.faulty)
    assert {faulty for _, faulty in moments(clean, synthetic_corpus.features(clean))} == {False}


def test_the_origin_of_a_layers_fault_is_its_site_alone(synthetic_corpus):
    run = next(r for r in synthetic_corpus.runs if r.key == "score/normalization")
    graph = synthetic_corpus.features(run).graph
    labels = dict(zip(graph.names, origin_labels(graph, run).tolist(), strict=True))
    assert [name for name, value in labels.items() if value == 1] == [f"score@{run.layers[0]}"]


def test_every_class_keeps_most_of_its_runs_for_training(synthetic_corpus):
    held = split_validation(synthetic_corpus.runs)
    assert 0 < len(held) < len(synthetic_corpus.runs) / 2
    for key in {run.key for run in synthetic_corpus.runs}:
        assert any(run.key == key and run.id not in held for run in synthetic_corpus.runs)


def test_a_network_fitted_to_runs_tells_them_apart(trained, synthetic_corpus):
    from diagnoser.replay import replay

    found = figures(
        [replay(trained, r, synthetic_corpus.features(r)) for r in synthetic_corpus.runs]
    )
    assert found.detection.f1 > 0.9
    assert found.category_f1 > 0.9
    assert found.layer_right / found.layer_runs > 0.8
    assert found.clean_flagged <= 1


def test_features_are_extracted_once_and_again_when_the_trace_changes(tmp_path):
    synthetic_runs.write_corpus(tmp_path, runs_each=1, count=6)
    read = manifest.read(tmp_path)
    assert len(extract_all(read, workers=1).runs) == len(read.runs)
    cached = tmp_path / "features" / f"{read.runs[0].id}.npz"
    other = tmp_path / "features" / f"{read.runs[1].id}.npz"
    before, same = cached.stat().st_mtime_ns, other.stat().st_mtime_ns
    header = synthetic_runs.header("bert", 2)
    trace = read.trace(read.runs[0])
    trace.unlink()
    synthetic_runs.write_trace(trace, [header, *synthetic_runs.frames(header, 9)])
    extract_all(read, workers=1)
    assert cached.stat().st_mtime_ns != before
    assert other.stat().st_mtime_ns == same
    assert len(read_cached(cached).steps) == 9


def test_unreadable_runs_are_left_out_with_a_reason(tmp_path):
    synthetic_runs.write_corpus(tmp_path, runs_each=1, count=5)
    runs = manifest.read(tmp_path).runs
    traces = [tmp_path / "runs" / f"{run.id}.trace" for run in runs[:3]]
    traces[0].unlink()
    traces[1].write_bytes(b"nonsense" * 50)
    data = traces[2].read_bytes()
    traces[2].write_bytes(data[: len(data) - 30])
    with (tmp_path / "manifest.jsonl").open("a") as file:
        file.write('{"id": "torn", "gro\n')
    found = extract_all(manifest.read(tmp_path), workers=1)
    left = {run.id for run in found.runs}
    assert runs[0].id not in left and runs[1].id not in left
    assert runs[2].id in left, "a torn tail costs the last record, not the run"
    text = (tmp_path / "features" / "skipped.txt").read_text()
    assert runs[0].id in text and runs[1].id in text and "manifest line" in text


def test_damaged_cached_features_are_made_anew(tmp_path):
    synthetic_runs.write_corpus(tmp_path, runs_each=1, count=5)
    read = manifest.read(tmp_path)
    extract_all(read, workers=1)
    cached = tmp_path / "features" / f"{read.runs[0].id}.npz"
    cached.write_bytes(cached.read_bytes()[:200])
    assert read_cached(cached) is None
    assert extract_all(read, workers=1).features(read.runs[0]).steps.size == 5


def test_train_writes_weights_that_say_where_they_come_from(synthetic_corpus, tmp_path, capsys):
    out = tmp_path / "w.safetensors"
    folder = str(synthetic_corpus.manifest.folder)
    options = ["--corpus", folder, "--out", str(out), "--epochs", "1", "--workers", "1"]
    assert train.main([*options, "--exclude-family", "bert"]) == 0
    about = weights.load(out).about
    assert about["corpus_checksum"] == synthetic_corpus.manifest.checksum
    assert about["excluded"] == ["bert"]
    assert about["runs"] == sum(run.family != "bert" for run in synthetic_corpus.runs)
    assert "trained on" in capsys.readouterr().err


def test_a_missing_corpus_gives_one_line(tmp_path, capsys):
    for main in (train.main, evaluate.main):
        assert main(["--corpus", str(tmp_path / "none")]) == 3
        (line,) = capsys.readouterr().err.splitlines()
        assert "diagnoser.corpus" in line


def test_wilson_interval():
    low, high = wilson(0, 100)
    assert low == 0 and high == pytest.approx(0.0370, abs=1e-4)
    assert wilson(5, 100) == pytest.approx((0.02154, 0.11175), abs=1e-4)
    assert wilson(0, 0) == (0.0, 1.0)


def test_markers_are_added_where_missing(tmp_path):
    path = tmp_path / "README.md"
    path.write_text("# Title\n")
    write_between(path, "one")
    write_between(path, "two")
    assert path.read_text().count(BEGIN) == 1
    assert "two" in path.read_text() and "one" not in path.read_text()


def test_cached_features_are_the_engines(synthetic_corpus):
    from diagnoser.features import RollingFeatures
    from probe.schema import Frame, Header
    from probe.trace import load

    run = synthetic_corpus.runs[3]
    records = list(load(synthetic_corpus.manifest.trace(run)))
    rolling = RollingFeatures(next(r for r in records if isinstance(r, Header)))
    found = [rolling.update(r) for r in records if isinstance(r, Frame)][-1]
    cached = synthetic_corpus.features(run).at(-1)
    for kind, values in found.nodes.items():
        np.testing.assert_allclose(cached[kind], values, atol=5e-3)


def test_samples_exist_for_every_root_cause(synthetic_corpus):
    causes = {sample.cause for sample in load_samples(synthetic_corpus)}
    assert len(causes) == 1 + len(synthetic_runs.FAULTS)
