"""Answers at single moments, and what ``evaluate --check`` makes of them."""

import json
import shutil
from dataclasses import replace

import msgspec
import pytest

from diagnoser import evaluate, manifest, moments, predictions, selfcheck, table
from diagnoser.corpus import FIRST_FINAL_SEED
from diagnoser.dataset import load_samples
from diagnoser.extract import extract_all
from diagnoser.fitting import Settings
from diagnoser.holdout import by_pairs
from diagnoser.manifest import CorpusError
from diagnoser.predictions import Evaluation
from diagnoser.replay import replay


@pytest.fixture(scope="module")
def some(synthetic_corpus):
    """Every third run, so that all families and tasks and most faults are there."""
    return replace(synthetic_corpus, runs=synthetic_corpus.runs[::3])


@pytest.fixture(scope="module")
def replayed(some, trained):
    return [replay(trained, run, some.features(run)) for run in some.runs]


@pytest.fixture(scope="module")
def final(some, tmp_path_factory):
    """The same runs as a final hold-out: its corpus and its feature table."""
    folder = tmp_path_factory.mktemp("final")
    shutil.copytree(some.manifest.folder / "runs", folder / "runs")
    known = {run.id for run in some.runs}
    lines = [json.loads(line) for line in some.manifest.lines().values()]
    kept = [line | {"seed": FIRST_FINAL_SEED + 1} for line in lines if line["id"] in known]
    (folder / "manifest.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in kept))
    table.pack(extract_all(manifest.read(folder), workers=1), folder / "table")
    return folder


def test_the_last_moment_answers_as_the_engine_does_at_the_end(some, trained, replayed):
    found = moments.answers(trained, load_samples(some))
    assert [p.id for p in found] == [p.id for p in replayed]
    told = ("truth", "faulty", "category", "root_cause", "layer", "frames", "contract_category")
    pairs = list(zip(found, replayed, strict=True))
    alike = sum(all(getattr(a, n) == getattr(b, n) for n in told) for a, b in pairs)
    assert alike >= 0.9 * len(found)
    assert {p.faulty for p in found} == {True, False}
    for now, then in pairs:
        assert not now.ever_flagged or then.ever_flagged
        if now.delay is not None and then.delay is not None:
            assert abs(now.delay - then.delay) <= 2


def test_broken_contracts_are_told_with_their_sites(some):
    samples = [s for s in load_samples(some) if s.faulty and s.run.category == "score"]
    assert samples
    for sample in samples:
        found = moments.broken_at(sample)
        assert {f.layer for f in found if f.node == "score"} == set(sample.run.layers)
        assert [f.rank for f in found] == sorted(f.rank for f in found)
    healthy = next(s for s in load_samples(some) if not s.faulty)
    assert moments.broken_at(healthy) == ()


def kept_of(answers, **about):
    found = Evaluation({"corpus": "x", "runs": 1, "pairs": 1, "families": [], "seed": 0} | about)
    found.add("final", "", "final", answers)
    return found


def test_the_final_hold_out_is_scored_from_its_table(final, trained, replayed):
    kept = kept_of(replayed, final={"weights": "abc"})
    found = selfcheck.score_final(kept, final / "table", trained, "abc")
    assert found.kept == tuple(replayed) and found.holds and found.alike >= 0.9
    assert "as it should be" in found.text()
    others = selfcheck.score_final(kept, final / "table", trained, "other weights")
    assert others.kept == () and others.holds and "No answers are kept" in others.text()
    wrong = [replace(p, faulty=not p.faulty, category=None) for p in replayed]
    spoiled = kept_of(wrong, final={"weights": "abc"})
    found = selfcheck.score_final(spoiled, final / "table", trained, "abc")
    assert not found.holds and "something is not the same" in found.text()


def test_a_table_that_weights_may_have_seen_is_no_final_hold_out(some, final, trained, tmp_path):
    kept = kept_of([])
    table.pack(some, tmp_path / "t")
    with pytest.raises(CorpusError, match="not the final hold-out"):
        selfcheck.score_final(kept, tmp_path / "t", trained, "")
    checksum = table.read(final / "table").checksum
    seen = replace(trained, about={"corpus_checksum": checksum})
    with pytest.raises(CorpusError, match="were trained on"):
        selfcheck.score_final(kept, final / "table", seen, "")
    with pytest.raises(CorpusError, match=r"no feature table of the final .* pack DIR --out"):
        selfcheck.score_final(kept, tmp_path / "none", trained, "")


def test_a_fold_is_trained_again_and_compared(some, trained, replayed, tmp_path, monkeypatch):
    table.pack(some, tmp_path / "t")
    folds = [cut.fold(some.runs, some.runs, Settings()) for cut in by_pairs(some.runs, 2)]
    kept = Evaluation({"corpus": some.manifest.checksum, "seed": 0})
    by_id = {p.id: p for p in replayed}
    for fold in folds:
        kept.add(fold.view, "", fold.name, [by_id[run.id] for run in fold.held])
    taught = []
    monkeypatch.setattr(selfcheck, "fit", lambda samples, *rest: taught.extend(samples) or trained)
    found = selfcheck.train_again(kept, tmp_path / "t", Settings(), print)
    least = min(folds, key=lambda fold: len(fold.training))
    assert {s.run.id for s in taught} == {run.id for run in least.training}
    assert {p.id for p in found.now} == {p.id for p in found.kept} == {r.id for r in least.held}
    assert found.holds and least.name in found.text()

    kept.about["corpus"] = "another"
    with pytest.raises(CorpusError, match="are of corpus another, the table"):
        selfcheck.train_again(kept, tmp_path / "t", Settings(), print)
    kept.about["corpus"] = some.manifest.checksum
    kept.answers = {("pairs", ""): {"others": []}}
    with pytest.raises(CorpusError, match="hold out other groups"):
        selfcheck.train_again(kept, tmp_path / "t", Settings(), print)


def test_the_command_answers_for_the_final_hold_out(
    final, trained, replayed, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(evaluate.weights, "load", lambda path=None: trained)
    monkeypatch.setattr(evaluate.weights, "digest", lambda path=None: "abc")
    path = tmp_path / "p.gz"
    predictions.save(kept_of([]), path)
    common = ["--predictions", str(path), "--readme", str(tmp_path / "README.md")]
    common += ["--pictures", str(tmp_path / "pictures"), "--workers", "1"]
    assert evaluate.main([*common, "--final", str(final)]) == 0
    again = predictions.load(path)
    assert [p.id for p in again.all("final")] == [p.id for p in replayed]
    assert again.about["final"]["weights"] == "abc"
    assert "the shipped weights" in (tmp_path / "README.md").read_text()

    tables = ["--final-table", str(final / "table"), "--table", str(tmp_path / "none")]
    capsys.readouterr()
    assert evaluate.main([*common, "--check", *tables]) == 3
    told = capsys.readouterr()
    assert "as it should be" in told.out
    assert "no feature table in" in told.err and "--out" in told.err

    monkeypatch.setattr(evaluate.weights, "digest", lambda path=None: "newer")
    assert evaluate.main(common) == 0
    assert "are of other weights" in capsys.readouterr().err
    assert "the shipped weights" not in (tmp_path / "README.md").read_text()


def test_only_the_final_hold_out_is_answered_as_such(some, trained, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(evaluate.weights, "load", lambda path=None: trained)
    path = tmp_path / "p.gz"
    predictions.save(kept_of([]), path)
    before = path.read_bytes()
    folder = some.manifest.folder
    assert evaluate.main(["--predictions", str(path), "--final", str(folder)]) == 3
    assert "is not the final hold-out" in capsys.readouterr().err
    assert path.read_bytes() == before


def test_fresh_trainings_are_none_that_the_weights_have_seen(
    some, trained, replayed, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(evaluate.weights, "load", lambda path=None: trained)
    monkeypatch.setattr(evaluate.weights, "digest", lambda path=None: "abc")
    path, folder = tmp_path / "p.gz", some.manifest.folder
    predictions.save(kept_of(replayed, final={"weights": "abc"}), path)
    table.pack(replace(some, runs=some.runs[:2]), tmp_path / "t")
    common = ["--predictions", str(path), "--readme", str(tmp_path / "README.md")]
    common += ["--pictures", str(tmp_path), "--workers", "1", "--table", str(tmp_path / "t")]
    assert evaluate.main([*common, "--fresh", str(folder)]) == 3
    assert "build --after" in capsys.readouterr().err

    others = replace(some, runs=some.runs[2:])
    monkeypatch.setattr(evaluate.sources, "prepare", lambda corpus, workers: others)
    assert evaluate.main([*common, "--fresh", str(folder)]) == 0
    again = predictions.load(path)
    assert [p.id for p in again.all("fresh")] == [run.id for run in others.runs]
    assert [p.id for p in again.all("final")] == [p.id for p in replayed]
    assert "trainings built since" in (tmp_path / "README.md").read_text()

    monkeypatch.setattr(evaluate.weights, "digest", lambda path=None: "newer")
    assert evaluate.main(common) == 0
    told = capsys.readouterr().err
    assert "--final DIR" in told and "--fresh DIR" in told
    assert "trainings built since" not in (tmp_path / "README.md").read_text()


def test_answers_survive_the_file(replayed, tmp_path):
    predictions.save(kept_of(replayed, final={"weights": "abc"}), tmp_path / "p.gz")
    again = predictions.load(tmp_path / "p.gz")
    assert msgspec.json.encode(again.all("final")) == msgspec.json.encode(replayed)
