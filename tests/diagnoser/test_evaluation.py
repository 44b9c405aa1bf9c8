"""What is held out, the baselines, the kept answers and the tables made from them."""

import gzip
import json
import shutil
from dataclasses import replace

import msgspec
import numpy as np
import pytest
import torch

from diagnoser import compare, evaluate, holdout, predictions, sources, table, weights
from diagnoser import folds as folds_of
from diagnoser.ablation import ABLATIONS, reduced
from diagnoser.batch import collate
from diagnoser.dataset import load_samples
from diagnoser.figures import calibration_error, figures, quantile
from diagnoser.fitting import Settings
from diagnoser.graph import RELATIONS
from diagnoser.model import DiagnosisNetwork, Shape
from diagnoser.replay import replay
from diagnoser.report import BEGIN, END, report, row
from diagnoser.trees import fit_trees
from diagnoser.weights import Trained, load, save


def sized(runs):
    """The runs with sizes and, for every root cause, two operators."""
    return [
        msgspec.structs.replace(
            run,
            size=f"{2 + number % 3}x{16 * (1 + number % 2)}h2",
            operator=f"{run.root_cause}{number % 2}" if run.faulty else None,
        )
        for number, run in enumerate(runs)
    ]


def test_every_way_holds_out_whole_groups(synthetic_corpus):
    runs = sized(synthetic_corpus.runs)
    folds = holdout.plan(runs, 3, Settings(), variants=[*holdout.EVERYWHERE, "types"])
    plain = [fold for fold in folds if not fold.variant]
    for view in ("pairs", "families"):
        held = [run.id for fold in plain if fold.view == view for run in fold.held]
        assert sorted(held) == sorted(run.id for run in runs)
    for fold in folds:
        ids = {run.id for run in fold.held}
        assert ids and not ids & {run.id for run in fold.training}
        assert len(fold.training) + len(fold.held) == len(runs)
        if fold.view == "pairs":
            assert not {r.group for r in fold.held} & {r.group for r in fold.training}
        elif fold.view == "families":
            assert not {r.lineage for r in fold.held} & {r.lineage for r in fold.training}
        elif fold.view == "sizes":
            assert max(r.cells for r in fold.training) < min(r.cells for r in fold.held)
        else:
            learnt = {r.operator for r in fold.training if r.faulty}
            asked = {r.operator for r in fold.held if r.faulty}
            assert not learnt & asked
            assert {r.key for r in fold.held if r.faulty} <= {r.key for r in fold.training}
    assert {fold.view for fold in plain} == {"pairs", "families", "sizes", "operators"}
    views = {fold.view for fold in folds if fold.variant == "types"}
    assert views == {"pairs"}
    for variant in holdout.EVERYWHERE:
        assert {f.view for f in folds if f.variant == variant} == {f.view for f in plain}


def test_a_cause_with_one_operator_is_not_asked_for_without_it(synthetic_corpus):
    runs = synthetic_corpus.runs
    assert holdout.by_operator(runs) == []
    assert holdout.by_size(runs) == []


@pytest.fixture(scope="module")
def some(synthetic_corpus):
    samples = load_samples(synthetic_corpus)[:6]
    fired = np.stack([sample.fired for sample in samples])
    fired[0] = 1
    return collate([s.graph for s in samples], [s.nodes for s in samples], fired)


def test_nothing_is_taken_without_an_ablation(some):
    assert reduced(some, ()) is some
    assert reduced(some, ("messages", "separation")) is some


def test_without_contracts_nothing_tells_of_them(some):
    less = reduced(some, ("contracts",))
    assert not less.fired.any() and some.fired.any()
    from diagnoser import schema

    for kind in schema.node_kinds():
        told = schema.feature_names(kind)
        contracts = {m.name for m in schema.metrics_of(kind) if m.contract}
        for column, name in enumerate(told):
            if name.split(":")[0] in contracts:
                assert not less.x[kind][:, column].any()
            else:
                assert torch.equal(less.x[kind][:, column], some.x[kind][:, column])


def test_collapsed_layers_are_their_mean(some):
    less = reduced(some, ("layers",))
    start = 0
    for kind, values in some.x.items():
        graph = some.graph_of[start : start + len(values)]
        start += len(values)
        for number in range(some.graphs):
            own = less.x[kind][graph == number]
            if len(own):
                mean = values[graph == number].mean(dim=0)
                torch.testing.assert_close(own, mean.expand_as(own))


def test_edges_elsewhere_stay_in_their_graph_and_keep_their_number(some):
    less = reduced(some, ("wiring",))
    assert torch.equal(less.edge_index[0], some.edge_index[0])
    assert not torch.equal(less.edge_index[1], some.edge_index[1])
    graph = some.graph_of
    assert torch.equal(graph[less.edge_index[1]], graph[some.edge_index[1]])
    degrees = [torch.bincount(b.edge_index[1], minlength=len(graph)) for b in (less, some)]
    assert torch.equal(degrees[0].sort().values, degrees[1].sort().values)


@pytest.mark.parametrize("without", ["types", "wiring"])
def test_messages_of_a_type_into_a_node_still_sum_to_one(some, without):
    less = reduced(some, (without,))
    into = less.edge_index[1] * len(RELATIONS) + less.edge_type
    sums = torch.zeros(int(into.max()) + 1).index_add(0, into, less.edge_weight)
    torch.testing.assert_close(sums[into.unique()], torch.ones(len(into.unique())))


@pytest.mark.parametrize("name", list(ABLATIONS))
def test_every_ablation_is_trained_saved_and_read_again(name, trained, some, tmp_path):
    torch.manual_seed(0)
    network = DiagnosisNetwork(trained.network.names, Shape(without=(name,))).eval()
    assert (len(network.rounds) == 0) == (name == "messages")
    save(Trained(network), tmp_path / "w.safetensors")
    again = load(tmp_path / "w.safetensors").network
    assert again.shape.without == (name,)
    with torch.no_grad():
        assert torch.equal(again(some).category, network(some).category)


def test_trees_tell_the_runs_they_learnt_apart(synthetic_corpus, monkeypatch):
    monkeypatch.setattr("diagnoser.trees.COLUMNS", 120)  # of 300: what takes the time
    trees = fit_trees(load_samples(synthetic_corpus), Settings(), rounds=20)
    runs = synthetic_corpus.runs[::3]
    found = figures([replay(trees, run, synthetic_corpus.features(run)) for run in runs])
    assert found.detection.f1 > 0.9
    assert found.category_f1 > 0.8


@pytest.fixture
def small_corpus(synthetic_corpus, tmp_path):
    """A copy without one family."""
    corpus = tmp_path / "corpus"
    shutil.copytree(synthetic_corpus.manifest.folder, corpus)
    lines = (corpus / "manifest.jsonl").read_text().splitlines()
    kept = [line for line in lines if json.loads(line)["family"] != "bert"]
    (corpus / "manifest.jsonl").write_text("\n".join(kept) + "\n")
    return corpus


def test_answers_are_kept_and_the_tables_come_from_them(small_corpus, tmp_path):
    readme, out = tmp_path / "README.md", tmp_path / "p.jsonl.gz"
    readme.write_text(f"# Title\n\nBefore.\n\n{BEGIN}\nold\n{END}\n\nAfter.\n")
    common = ["--readme", str(readme), "--predictions", str(out)]
    common += ["--pictures", str(tmp_path / "docs" / "pictures")]
    options = ["--corpus", str(small_corpus)]
    options += ["--epochs", "1", "--folds", "2", "--workers", "1"]
    assert evaluate.main([*common, *options]) == 0
    text = readme.read_text()
    assert "\nold\n" not in text and "Before." in text and "After." in text
    for words in (
        "model-task pairs held out",
        "… llama left out",
        "contracts alone",
    ):
        assert words in text
    assert "](docs/pictures/confusion-pairs.svg)" in text
    assert (tmp_path / "docs" / "pictures" / "confusion-families.svg").is_file()
    first = out.read_bytes()
    lines = gzip.decompress(first).decode().splitlines()
    assert json.loads(lines[0])["about"]["families"] == sorted({"gpt2", "llama"})

    readme.write_text("# Title\n")
    assert evaluate.main(common) == 0
    assert text.split(BEGIN)[1].split(END)[0] in readme.read_text()

    # Interrupted or asked again, folds that are done are not trained again.
    kept = sorted((small_corpus / "evaluation").glob("*.json"))
    answers = kept[0].read_bytes()
    kept[0].write_bytes(answers.replace(b'"frames":', b'"frames":1'))
    assert evaluate.main([*common, *options]) == 0
    assert out.read_bytes() != first
    kept[0].unlink()
    assert evaluate.main([*common, *options]) == 0
    assert out.read_bytes() == first


def test_traces_are_asked_about_by_networks_of_a_table_without_their_group(small_corpus, tmp_path):
    extracted = sources.prepare(small_corpus, workers=1)
    learnt, fresh = (replace(extracted, runs=extracted.runs[at::2]) for at in (0, 1))
    table.pack(learnt, tmp_path / "t")
    material = folds_of.Material((fresh, replace(extracted, runs=learnt.runs[:3])), tmp_path / "t")
    assert material.asked == (*fresh.runs, *learnt.runs[:3])
    folds = holdout.plan(material.source.runs, 2, Settings(epochs=1), asked=material.asked)
    alone = holdout.plan(learnt.runs, 2, Settings(epochs=1))
    # What is held out is told by what is learnt from, whatever is asked about.
    assert [(f.name, f.training) for f in folds] == [(f.name, f.training) for f in alone]
    for fold in folds:
        if fold.view == "pairs":
            trained_on = {run.group for run in fold.training}
            assert fold.held and not trained_on & {run.group for run in fold.held}
    assert sorted(run.id for f in folds if f.view == "pairs" for run in f.held) == sorted(
        run.id for run in material.asked
    )
    answers = folds_of.run_fold(material, folds[0])
    assert [answer.id for answer in answers] == [run.id for run in folds[0].held]
    # Nobody to ask, no training. The same runs recorded anew are asked anew.
    few = holdout.plan(learnt.runs, 2, Settings(epochs=1), asked=fresh.runs[:1])
    assert {f.name for f in few} < {f.name for f in folds} and all(f.held for f in few)
    anew = replace(fresh, manifest=replace(fresh.manifest, checksum="another"))
    for traces in (fresh, fresh, anew):
        assert len(folds_of.run_fold(folds_of.Material((traces,), tmp_path / "t"), few[0])) == 1
    assert len(list(material.kept.iterdir())) == 3
    found = evaluate.evaluate(material, folds[:1], 1, 0)
    assert found.about["runs"] == len(learnt.runs)
    assert f"Asked about are {len(fresh.runs) + 3} runs" in report(found)


def test_what_is_asked_and_what_is_learnt_from_is_checked(small_corpus, tmp_path, capsys):
    common = ["--readme", str(tmp_path / "r"), "--predictions", str(tmp_path / "p")]
    folder = str(small_corpus)
    assert evaluate.main([*common, "--corpus", folder, "--ask", folder]) == 3
    assert "give one of them" in capsys.readouterr().err
    assert evaluate.main([*common, "--ask", folder, folder, "--table", folder]) == 3
    assert "two of the corpora hold the run" in capsys.readouterr().err
    assert evaluate.main([*common, "--ask", folder, "--table", str(tmp_path / "none")]) == 3
    assert "no feature table in" in capsys.readouterr().err


def test_baselines_are_compared_at_single_moments_of_the_table(small_corpus, tmp_path, capsys):
    readme, out, packed = tmp_path / "README.md", tmp_path / "p.jsonl.gz", tmp_path / "t"
    common = ["--readme", str(readme), "--predictions", str(out), "--pictures", str(tmp_path)]
    common += ["--epochs", "1", "--folds", "2", "--workers", "1"]
    assert compare.main(["--table", str(packed), *common]) == 3
    assert evaluate.main(["--corpus", str(small_corpus), *common]) == 0
    before = predictions.load(out).answers
    table.pack(sources.prepare(small_corpus, workers=1), packed)
    options = ["--table", str(packed), *common, "--variants", "messages"]
    assert compare.main([*options, "--views", "pairs"]) == 0
    found = predictions.load(out).answers
    assert {key: found[key] for key in before} == before
    compared = "pairs, compared"
    assert set(found) - set(before) == {(compared, ""), (compared, "messages")}
    asked = [
        {p.id for fold in found[compared, way].values() for p in fold} for way in ("", "messages")
    ]
    assert asked[0] == asked[1] == {run.id for run in table.read(packed).runs}
    text = readme.read_text().split("What the network is good for")[1]
    assert "… without message passing" in text and "… contracts alone" in text
    assert "boosted trees" not in text and "families left out" not in text
    # Asked again, nothing is trained again.
    kept = {path: path.stat().st_mtime_ns for path in (packed / "evaluation").iterdir()}
    assert len(kept) == 4 and compare.main([*options, "--views", "pairs"]) == 0
    assert {path: path.stat().st_mtime_ns for path in (packed / "evaluation").iterdir()} == kept
    # Another evaluation keeps the comparison and the shipped weights' answers, which say what they
    # are of.
    assert "as it was with" not in readme.read_text()
    of = predictions.load(out)
    of.add("final", "", "final", of.all("pairs")[:2])
    of.about["final"] = {"corpus": "f", "runs": 2, "weights": weights.digest()}
    of.about["compared"] = {"corpus": "earlier", "runs": 7}
    predictions.save(of, out)
    assert evaluate.main(["--corpus", str(small_corpus), *common]) == 0
    again = predictions.load(out)
    assert again.answers == of.answers and again.about["final"] == of.about["final"]
    assert "as it was with 7 runs (corpus earlier)" in readme.read_text()
    # The next comparison, of the runs at hand, takes its place.
    assert compare.main([*options, "--views", "sizes"]) == 0
    assert not predictions.load(out).all(compared, "messages")
    assert "as it was with" not in readme.read_text()


@pytest.mark.parametrize(
    "content", [None, b"", b"rubbish", gzip.compress(b'{"about": {}}\n{}\n', mtime=0)]
)
def test_answers_that_cannot_be_read_give_one_line(content, tmp_path, capsys):
    path = tmp_path / "p.gz"
    if content is not None:
        path.write_bytes(content)
    assert evaluate.main(["--predictions", str(path), "--readme", str(tmp_path / "r")]) == 3
    (line,) = capsys.readouterr().err.splitlines()
    assert "--corpus" in line


def test_healthy_runs_alone_have_no_figures_of_faults(trained, synthetic_corpus):
    runs = [run for run in synthetic_corpus.runs if not run.faulty][:2]
    found = figures([replay(trained, run, synthetic_corpus.features(run)) for run in runs])
    assert row("healthy", found).startswith("| healthy | 0 / 2 | – | – | – | – | ")


def test_a_report_of_nothing_is_its_head():
    about = {"corpus": "x", "runs": 0, "pairs": 0, "families": [], "seed": 0}
    assert "0 runs" in report(predictions.Evaluation(about))


def test_a_view_is_told_once_more_without_what_nothing_shows(trained, synthetic_corpus):
    runs = [run for run in sized(synthetic_corpus.runs) if run.group == "bert/a"]
    answers = [replay(trained, run, synthetic_corpus.features(run)) for run in runs]
    operator = next(run.operator for run in runs if run.faulty)
    faulty = sum(run.faulty for run in runs)
    left = sum(run.faulty and run.operator != operator for run in runs)
    about = {"corpus": "x", "runs": len(runs), "pairs": 1, "families": ["bert"], "seed": 0}
    found = predictions.Evaluation(about)
    found.add("pairs", "", "all", answers)
    text = report(found, unseen=[operator])
    line = next(line for line in text.splitlines() if f"no metric shows ({operator})" in line)
    assert f"| {left} / " in line and 0 < left < faulty
    assert "no metric shows" not in report(found, unseen=["XYZ"])


def test_quantiles_and_calibration(trained, synthetic_corpus):
    assert quantile([1, 2, 3, 4], 0.5) == 2
    assert quantile([1, 2, 3, 4], 0.9) == 4
    assert np.isnan(quantile([], 0.5))
    run = next(r for r in synthetic_corpus.runs if r.faulty)
    answer = replay(trained, run, synthetic_corpus.features(run))
    sure = msgspec.convert(answer.as_dict() | {"probability": 1.0}, type(answer))
    healthy = msgspec.convert(answer.as_dict() | {"probability": 0.25, "truth": None}, type(answer))
    assert calibration_error([sure]) == 0
    assert calibration_error([sure, healthy]) == pytest.approx(0.125)
    if answer.delay is not None:
        assert answer.delay >= 1
