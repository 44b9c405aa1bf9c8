"""What a corpus is worth: observed, reported, and which of its faults hurt."""

from __future__ import annotations

import numpy as np
import pytest
from small_corpus import record_small

from diagnoser import faults
from diagnoser.corpus import CorpusError, kill, pool, report
from diagnoser.corpus.__main__ import main
from diagnoser.corpus.kill import Order, kill_test, measure, validation_loss
from diagnoser.corpus.manifest import Audit, Ledger, load, trace_path
from diagnoser.corpus.observe import KEPT, observe_corpus, recorded
from diagnoser.corpus.training import Training
from diagnoser.faults import observed, readme
from diagnoser.kill_test import Kills, Measured


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return record_small(tmp_path_factory.mktemp("corpus"))


def test_a_fault_is_seen_beside_its_clean_twin(folder):
    found, unread = observe_corpus(folder)
    assert unread == [] and (found.runs, found.healthy) == (1, 1)
    (group,) = found.causes
    assert (group.cause, group.fired, group.seen) == ("score/normalization", 1, 1)
    assert "score/scale_ratio" in {metric.name for metric in group.metrics}
    assert list(group.families) == ["gpt2"]


def test_what_is_measured_rarely_stands_until_the_next_time(folder):
    found = recorded(trace_path(folder, "clean"))
    rare = [at for at, name in enumerate(found.names) if name == "output/future_effect"]
    (seen,) = np.isfinite(found.values[:, rare]).T
    assert seen.any() and seen[seen.argmax() :].all()


def test_traces_are_read_once(folder, tmp_path, monkeypatch):
    kept = tmp_path / "kept.jsonl"
    first = observe_corpus(folder, kept)
    with kept.open("ab") as file:
        file.write(b'{"label": "torn')
    monkeypatch.setattr("diagnoser.corpus.observe.recorded", None)
    assert observe_corpus(folder, kept) == first
    assert observe_corpus(folder, kept) == first
    monkeypatch.undo()
    kept.write_text("of another method\n" + kept.read_text().split("\n", 1)[1])
    assert observe_corpus(folder, kept) == first
    assert not kept.read_text().startswith("of another method")


def test_a_trace_that_cannot_be_read_is_named(folder, tmp_path):
    copy = tmp_path / "corpus"
    (copy / "runs").mkdir(parents=True)
    (copy / "manifest.jsonl").write_bytes((folder / "manifest.jsonl").read_bytes())
    with pytest.raises(CorpusError, match=r"no faulty run in .* can be read"):
        observe_corpus(copy)
    for run in ("clean", "SDS"):
        (copy / "runs" / f"{run}.trace").write_bytes((folder / f"runs/{run}.trace").read_bytes())
    found, unread = observe_corpus(copy)
    assert (found.runs, found.healthy) == (1, 0)
    assert [run for run, _ in unread] == ["shrink"]


def test_the_commands_print_and_keep(folder, capsys, tmp_path, monkeypatch):
    for name in ("OBSERVABILITY", "KILLS"):
        monkeypatch.setattr(observed, name, tmp_path / f"{name}.json")
    monkeypatch.setattr(readme, "README", tmp_path / "README.md")
    monkeypatch.setattr(report, "FILE", tmp_path / "REPORT.md")
    text = "".join(
        f"<!-- {name} begin: {readme.COMMAND} -->\n<!-- {name} end -->\n"
        for name in ("catalogue", "observability", "kill test")
    )
    readme.README.write_text(text)
    assert main(["observe", str(folder)]) == 0
    assert "| score/normalization | 1 | 100 % | 0 % | 100 % |" in capsys.readouterr().out
    assert not observed.OBSERVABILITY.exists()
    assert main(["observe", str(folder), "--write"]) == 0
    assert observed.read_observability().runs == 1
    assert "| score/normalization | 1 | 100 % |" in readme.README.read_text()
    assert (folder / KEPT).is_file()
    assert main(["report", str(folder), "--write"]) == 0
    assert report.FILE.read_text().startswith("# What the corpus holds\n")
    assert main(["report", str(tmp_path)]) == 3


def test_the_report_counts_what_is_held_and_what_is_not(folder):
    audits = [
        *Ledger(folder).audits,
        Audit(
            id="x",
            event="crashed",
            reason="Traceback\nValueError: a | b",
            group="gpt2/sort",
            operator="SDS",
            category="score",
            root_cause="normalization",
        ),
    ]
    text = report.report(load(folder), audits, Kills(design="not run", verdicts=()), "abc")
    lines = text.splitlines()
    assert "audit of the corpus abc." in text
    assert "4 runs of 1 trainings (scenarios): 2 as they are, 1 with a healthy change" in text
    assert "| score/normalization | 1 | 1 | 1 | 1 | 0 | 0 | 1 | 0 |" in lines
    assert "| qkv/dimension | 0 | 0 | 0 | 0 | 0 | 0 | 0 | 0 |" in lines
    assert "| gpt2 | 2 | 1 | 1 |" in lines and "| shrink_batches | 1 |" in lines
    assert "| crashed | SDS | 1 | ValueError: a / b (1) |" in lines
    assert any(line.startswith("| unfit | NONE | 1 |") for line in lines)


@pytest.fixture
def short(monkeypatch):
    for name, value in (("STEPS", 6), ("INJECT_AT", 2), ("LAST", 2), ("VALIDATION_BATCHES", 1)):
        monkeypatch.setattr(kill, name, value)


def test_trainings_of_a_seed_are_the_same_up_to_the_fault(short):
    (clean,), (again,) = measure(Order("gpt2", None, 3)), measure(Order("gpt2", None, 3))
    (faulty,) = measure(Order("gpt2", "SDS", 3))
    assert clean == again and clean.operator is None
    assert (faulty.cause, faulty.operator, faulty.layers) == ("score/normalization", "SDS", (0, 1))
    assert faulty.training != clean.training and faulty.failure is None


def test_decoding_with_the_cache_gives_the_loss_of_one_forward_and_shows_its_faults(short):
    training = Training(kill.recipe("gpt2", 0))
    training.recipe = kill.replace(training.recipe, padding="none")
    batch = next(kill.Batches(training.recipe, stream=6))
    for parameter in training.model.parameters():  # at its start attention hardly matters
        parameter.data.mul_(3.0)
    training.model.eval()
    with kill.torch.no_grad():
        whole = training.loss(batch).item()
    clean = validation_loss(training)
    assert clean == pytest.approx(whole, abs=1e-4)
    fault = kill._fault(faults.OPERATORS["CDU"], training)
    with faults.inject(training.model, training.optimizer, fault):
        assert abs(validation_loss(training) - clean) > 1e-3


def test_an_operator_that_raises_is_a_failure(short, monkeypatch):
    def broken(*arguments):
        raise RuntimeError("boom")

    monkeypatch.setattr(kill.faults, "inject", broken)
    (found,) = measure(Order("bert", "SDS", 0))
    assert found.failure == "RuntimeError: boom"


def pretended(take, work, *, jobs, patience):
    """A pool in this process; the faulty training of seed 4 loses its process."""
    while (order := take()) is not None:
        if order.seed == 4 and order.operator:
            yield pool.Outcome(order, (), "the process ended with status 9")
            continue
        loss = 2.0 if order.operator else 1.0
        cause = "score/normalization" if order.operator else None
        measured = Measured(
            family=order.family,
            kind="encoder" if order.family == "bert" else "decoder",
            seed=order.seed,
            cause=cause,
            operator=order.operator,
            training=loss,
            validation=loss,
        )
        yield pool.Outcome(order, (measured,))


def test_the_kill_test_goes_on_where_it_was_ended(tmp_path, monkeypatch, capsys):
    trained = []

    def counted(take, work, **settings):
        for outcome in pretended(take, work, **settings):
            trained.append(outcome.job)
            yield outcome
            if len(trained) == 12:
                return

    monkeypatch.setattr(pool, "run", counted)
    kill_test(tmp_path, minutes=1, only=("SDS",))
    assert len(trained) == 12
    with (tmp_path / kill.KEPT).open("ab") as file:
        file.write(b'{"design": "torn')
    found = kill_test(tmp_path, minutes=1, only=("SDS",))
    assert len(trained) == len(set(trained)) == 20  # 2 families, 5 seeds, clean and faulty
    assert [(v.family, v.killed, v.seeds) for v in found.verdicts] == [
        ("bert", True, 5),
        ("gpt2", True, 5),
    ]
    assert found.verdicts[0].failure == "the process ended with status 9"
    assert kill_test(tmp_path, minutes=0, only=("SDS",)) == found and len(trained) == 20
    with pytest.raises(CorpusError, match="no operator XXX: "):
        kill_test(tmp_path, minutes=0, only=("XXX",))
    assert main(["kill", str(tmp_path), "--only", "SDS", "--minutes", "0"]) == 0
    printed = capsys.readouterr().out
    assert "| score | 1 of 1 (100 %) | 1 of 1 (100 %) |" in printed and "81.7 %" in printed
    assert "SDS score/normalization on gpt2: killed, +1.000 nats" in printed


def test_every_operator_of_a_family_is_tried_from_matched_seeds():
    wanted = kill.orders()
    assert len(wanted) == len(set(wanted))
    assert [order.operator for order in wanted[:10]] == [None] * 10
    by_fault = {}
    for order in wanted:
        by_fault.setdefault((order.family, order.operator), []).append(order.seed)
    assert all(seeds == [0, 1, 2, 3, 4] for seeds in by_fault.values())
    tried = {operator for _, operator in by_fault if operator}
    assert tried == set(faults.OPERATORS)
    assert ("bert", "CST") not in by_fault and ("gpt2", "VEC") not in by_fault
