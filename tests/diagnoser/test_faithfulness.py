import numpy as np
import pytest

from diagnoser import faithfulness, table
from diagnoser.dataset import load_samples
from diagnoser.faithfulness import REMOVED, Outcome, examine, last_moments, met_at, without
from diagnoser.rules import RULES


@pytest.fixture(scope="module")
def score(synthetic_corpus):
    runs = [run for run in synthetic_corpus.runs if run.category == "score"]
    return last_moments(load_samples(synthetic_corpus, runs))[0]


def rule_number(node, metric, cause):
    """The first one on a metric that speaks for a cause."""
    said = (node, metric, cause)
    return next(n for n, r in enumerate(RULES) if said == (r.nodes[0], r.metric, r.causes[0]))


def test_the_last_faulty_moment_of_every_run_is_taken(synthetic_corpus):
    samples = load_samples(synthetic_corpus)
    found = last_moments(samples)
    assert len({s.run.id for s in found}) == len(found) > 10
    for sample in found:
        frames = [s.frame for s in samples if s.run.id == sample.run.id and s.faulty]
        assert sample.faulty and sample.frame == max(frames)


def test_a_removed_component_is_absent_and_its_contracts_are_not_met(score):
    met = met_at(score)
    number = rule_number("score", "scale_ratio", "score/normalization")
    assert met[number] == {"score"}
    nodes, fired = without(score, ("score", "ffn"), met)
    assert not nodes["score"].any() and not nodes["ffn"].any() and nodes["qkv"].any()
    assert score.fired[number] == 1 and fired[number] == 0
    _, others = without(score, ("qkv", "ffn"), met)
    assert others[number] == 1
    assert score.nodes["score"].any(), "the sample itself is as it was"


def test_a_contract_broken_in_two_components_survives_the_loss_of_one(score):
    _, fired = without(score, ("norm_ffn",), {3: {"norm_ffn", "norm_attention"}})
    assert fired.tolist() == score.fired.tolist()


def test_the_component_of_the_broken_contract_is_what_decides(score, trained):
    found = examine(trained, score, np.random.default_rng(0))
    assert found is not None and "score" in found.removed and len(found.removed) == REMOVED
    assert found.faithful.all()


def test_wrong_answers_are_not_explained(score, trained):
    from dataclasses import replace

    other = replace(score, category=0, cause=0)
    assert examine(trained, other, np.random.default_rng(0)) is None


def test_the_table_counts_by_category():
    falls, rises = np.array([2.0, 2.0]), np.array([-1.0, 2.0])
    random = np.tile([1.0, 1.0], (4, 1))
    random[0] = [3.0, 3.0]
    outcomes = [
        Outcome("ffn", ("ffn", "output"), falls, random, "residual"),
        Outcome("ffn", ("qkv", "output"), rises, random, "residual"),
    ]
    text = faithfulness.table(outcomes, 3)
    assert text.startswith("Of 3 faulty runs 2 are named rightly.")
    assert "| ffn | 2 | 0.500 [0.095, 0.905] | 0.375 | 1.000 [0.342, 1.000] | 0.750 |" in text
    assert "residual in 2 of 2" in text


def test_the_command_reads_a_table(synthetic_corpus, weights_file, tmp_path, capsys):
    table.pack(synthetic_corpus, tmp_path / "t")
    where = ["--corpus", str(tmp_path / "t"), "--weights", str(weights_file)]
    assert faithfulness.main([*where, "--limit", "12"]) == 0
    assert "Of 12 faulty runs" in capsys.readouterr().out
    assert faithfulness.main(["--corpus", str(tmp_path), "--weights", str(weights_file)]) == 3
    assert "diagnoser.corpus" in capsys.readouterr().err
