"""Building: real traces end to end, resumable, isolated from crashes and hangs."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from itertools import islice
from pathlib import Path

import corpus_work
import pytest
from small_corpus import fault, record_small, scenario

from diagnoser.corpus import CorpusError, execute, journal, pool
from diagnoser.corpus.__main__ import main
from diagnoser.corpus.build import build
from diagnoser.corpus.comparison import first_difference
from diagnoser.corpus.execute import Begun, Order
from diagnoser.corpus.manifest import Audit, Entry, Ledger, load, trace_path
from diagnoser.corpus.plan import Branch, scenarios
from probe import trace
from probe.schema import Frame, Header


def column(path, key):
    records = trace.load(path)
    header = next(record for record in records if isinstance(record, Header))
    at = [c.key for c in header.columns].index(key)
    return {r.step: float(r.array[at]) for r in records if isinstance(r, Frame)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return record_small(tmp_path_factory.mktemp("corpus"))


def test_a_run_is_a_trace_and_a_line_of_the_manifest(folder):
    entries = {entry.id: entry for entry in load(folder)}
    assert list(entries) == ["clean", "again", "shrink", "SDS"]
    sds = entries["SDS"]
    assert (sds.kind, sds.category, sds.root_cause, sds.operator) == (
        "faulty",
        "score",
        "normalization",
        "SDS",
    )
    assert sds.start_step == 3 and sds.layers and sds.group == "gpt2/lm_source"
    assert entries["shrink"].kind == "clean" and entries["shrink"].start_step == 3
    assert entries["clean"].category is None and entries["clean"].start_step is None
    assert all(trace_path(folder, run).is_file() for run in entries)


def test_the_trace_shows_the_fault_from_its_step_on(folder):
    layer = {entry.id: entry for entry in load(folder)}["SDS"].layers[0]
    ratios = column(trace_path(folder, "SDS"), f"score@{layer}/scale_ratio")
    assert set(range(9)) == set(ratios)
    for step, value in ratios.items():
        assert (abs(value) > 0.5) == (step >= 3), ratios
    before = column(trace_path(folder, "clean"), "training/loss")
    after = column(trace_path(folder, "SDS"), "training/loss")
    assert all((before[step] == after[step]) == (step < 3) for step in before)


def test_a_twin_of_the_clean_run_differs_in_nothing(folder):
    clean = trace_path(folder, "clean")
    assert first_difference(clean, trace_path(folder, "again")) is None
    assert first_difference(clean, trace_path(folder, "SDS")).endswith("at step 3")


def test_a_fault_that_does_not_fit_is_audited(folder):
    (audit,) = Ledger(folder).audits
    assert (audit.id, audit.event) == ("misnamed", "unfit")
    assert not trace_path(folder, "misnamed").exists()


def test_a_fault_that_changes_nothing_is_discarded(tmp_path, monkeypatch):
    monkeypatch.setattr(
        execute.faults, "inject", lambda model, optimizer, fault: execute.ExitStack()
    )
    one = scenario(fault("SDS", "score", "normalization"))
    events = list(execute.run(Order(one, tmp_path)))
    audit = events[-1]
    assert isinstance(audit, Audit) and audit.event == "discarded" and audit.layers
    assert trace_path(tmp_path, "clean").exists()
    assert not trace_path(tmp_path, "SDS").exists()


def test_a_crash_in_a_branch_costs_that_branch(tmp_path, monkeypatch):
    def broken(model, optimizer, fault):
        raise RuntimeError("boom")

    monkeypatch.setattr(execute.faults, "inject", broken)
    one = scenario(fault("SDS", "score", "normalization"), Branch("later"), inject_step=0)
    ends = [event for event in execute.run(Order(one, tmp_path)) if not isinstance(event, Begun)]
    assert [type(end) for end in ends] == [Entry, Audit, Entry]
    assert ends[1].event == "crashed" and "boom" in ends[1].reason


def test_settled_branches_are_not_run_again(tmp_path):
    one = scenario(Branch("second"))
    done = frozenset({"clean", "second"})
    assert list(execute.run(Order(one, tmp_path, done))) == []


def test_no_more_runs_than_asked_for(tmp_path):
    events = list(execute.run(Order(scenario(Branch("second")), tmp_path, most=1)))
    assert [event.id for event in events if isinstance(event, Entry)] == ["clean"]


@pytest.mark.parametrize("unseen", [0, 20])  # the loss grows; it is no number any more
def test_a_training_that_diverges_by_itself_is_no_example_of_anything(unseen, tmp_path):
    one = scenario(fault("SDS", "score", "normalization"), Branch("second"))
    recipe = replace(one.recipe, optimizer="sgd", learning_rate=3.0, clip=None, warmup=0)
    one = replace(one, recipe=recipe, unseen_steps=unseen)
    events = [e for e in execute.run(Order(one, tmp_path)) if not isinstance(e, Begun)]
    assert [(e.id, e.event) for e in events] == [
        (name, "unfit") for name in ("clean", "SDS", "second")
    ]
    assert "diverged" in events[0].reason
    assert not list(tmp_path.rglob("*.trace"))


def test_no_branch_begins_after_the_time_is_up(tmp_path):
    events = list(execute.run(Order(scenario(), tmp_path, stop_at=0.0)))
    assert not any(isinstance(event, Entry | Audit) for event in events)


def test_the_pool_outlives_jobs_that_die_or_hang():
    waiting = ["one", "die", "hang", "two"]
    outcomes = {
        outcome.job: outcome
        for outcome in pool.run(
            lambda: waiting.pop(0) if waiting else None, corpus_work.echo, jobs=2, patience=15
        )
    }
    assert set(outcomes) == {"one", "die", "hang", "two"}
    for job in ("one", "two"):
        assert outcomes[job] == pool.Outcome(job, (f"begun {job}", f"done {job}"))
    assert "status 7" in outcomes["die"].failure and outcomes["die"].contents == ("begun die",)
    assert "nothing was heard" in outcomes["hang"].failure


def test_the_pool_outlives_its_workers():
    waiting = ["kill", "one", "two"]
    ends = {
        outcome.job: outcome.failure
        for outcome in pool.run(
            lambda: waiting.pop(0) if waiting else None, corpus_work.echo, jobs=2, patience=15
        )
    }
    assert ends.pop("kill").startswith("joblib's worker died")
    assert ends == {"one": None, "two": None}


def until(found, seconds: float = 90.0):
    """What ``found`` gives once that is something."""
    deadline = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.05)
    return value


def free(path: Path) -> bool:
    """Nobody holds the file's lock: it goes with the process, even one that nobody waited for."""
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_build_that_is_killed_leaves_no_process_behind(tmp_path, how):
    code = (
        "import corpus_work; from diagnoser.corpus import pool; "
        f"jobs = [{str(tmp_path)!r}] * 2; "
        "list(pool.run(lambda: jobs.pop() if jobs else None, corpus_work.linger, jobs=2, "
        "patience=600))"
    )
    places = [str(Path(corpus_work.__file__).parent), *filter(None, sys.path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(places)}
    build = subprocess.Popen([sys.executable, "-c", code], env=environment)
    try:
        until(lambda: [path.read_text() for path in tmp_path.iterdir()] == ["held"] * 2)
        assert not any(map(free, tmp_path.iterdir()))
        build.send_signal(how)
        build.wait()
        until(lambda: all(map(free, tmp_path.iterdir())))
    finally:
        build.kill()


def test_what_the_plan_raises_is_raised():
    def take():
        raise ValueError("no plan")

    with pytest.raises(ValueError, match="no plan"):
        list(pool.run(take, corpus_work.echo, jobs=2, patience=15))


def pretended(take, work, *, jobs, patience):
    """A pool in this process whose branches end at once, and where one run kills its process."""
    while (order := take()) is not None:
        one, recipe = order.scenario, order.scenario.recipe
        done = []
        failure = None
        for branch in one.branches:
            if branch.id in order.settled or len(done) == order.most:
                continue
            if "-00001-fault0" in branch.id:
                done.append(Begun(branch.id))
                failure = "the process ended with status 9"
                break
            entry = Entry(
                id=branch.id,
                group=one.group,
                scenario=one.number,
                family=recipe.family,
                task=recipe.task,
                size="",
                seed=recipe.seed,
                interval=one.interval,
                steps=one.steps,
                unseen_steps=one.unseen_steps,
                kind=branch.kind,
            )
            done.append(entry)
        yield pool.Outcome(order, tuple(done), failure)


def test_a_build_goes_on_where_it_stopped_and_blames_who_died(tmp_path, monkeypatch):
    monkeypatch.setattr(pool, "run", pretended)
    first = build(tmp_path, limit=6, jobs=1)
    assert (first.runs, first.failed) == (6, 0)
    with (tmp_path / "manifest.jsonl").open("a") as file:
        file.write('{"id": "torn')
    second = build(tmp_path, limit=22, jobs=1)
    assert (second.runs, second.failed) == (22, 1)
    ids = [entry.id for entry in load(tmp_path)]
    assert len(ids) == len(set(ids)) == 22
    planned = [b.id for s in islice(scenarios(0), 8) for b in s.branches]
    killed = next(run for run in planned if "-00001-fault0" in run)
    audit = json.loads((tmp_path / "audit.jsonl").read_text())
    assert (audit["id"], audit["event"]) == (killed, "lost")
    assert set(ids) <= set(planned) - {killed}
    assert next(run for run in planned if "-00001-fault1" in run) in ids
    third = build(tmp_path, limit=22, jobs=1)
    assert third.runs == 22


def test_what_an_ended_build_had_finished_is_not_run_again(tmp_path, monkeypatch):
    monkeypatch.setattr(pool, "run", pretended)
    one = next(scenarios(0))
    order = Order(one, tmp_path, most=2)
    finished = next(pretended(lambda: order, None, jobs=1, patience=1)).contents
    monkeypatch.setattr(execute, "run", lambda order: iter(finished))
    assert list(journal.run(order)) == list(finished)
    assert not (tmp_path / "manifest.jsonl").exists()
    assert build(tmp_path, limit=2, jobs=1).runs == 2
    assert load(tmp_path) == list(finished)
    assert build(tmp_path, limit=3, jobs=1).runs == 3
    assert len({entry.id for entry in load(tmp_path)}) == 3
    journal.close(order)
    assert not any((tmp_path / "under_way").glob("*"))


def test_a_folder_of_another_seed_is_refused(tmp_path, capsys):
    build(tmp_path, limit=1, minutes=0, jobs=1)
    assert main(["build", "--out", str(tmp_path), "--seed", "5", "--minutes", "0"]) == 3
    assert "was begun with --seed 0: pass" in capsys.readouterr().err
    assert main(["build", "--out", str(tmp_path), "--final", "--minutes", "0"]) == 3
    build(tmp_path / "held", final=True, limit=1, minutes=0, jobs=1)
    assert main(["build", "--out", str(tmp_path / "held"), "--minutes", "0"]) == 3
    assert "was begun with --seed 0 --final: pass" in capsys.readouterr().err


def test_a_build_after_others_leaves_their_scenarios_out(tmp_path, monkeypatch):
    monkeypatch.setattr(pool, "run", pretended)
    build(tmp_path, limit=3, after=4, jobs=1)
    assert {entry.scenario for entry in load(tmp_path)} == {5}
    planned = next(islice(scenarios(0), 5, None))
    assert [entry.id for entry in load(tmp_path)] == [b.id for b in planned.branches[:3]]
    with pytest.raises(CorpusError, match="--after a table of 5 scenarios: pass the same"):
        build(tmp_path, limit=3, jobs=1)


def test_describe_counts(folder, capsys, tmp_path):
    assert main(["describe", str(folder)]) == 0
    printed = capsys.readouterr().out
    assert "normalization" in printed and "gpt2/lm_source" in printed and "unfit NONE: 1" in printed
    assert main(["describe", str(tmp_path)]) == 3
    assert "no corpus in" in capsys.readouterr().err


def test_the_command_builds_for_real(tmp_path):
    assert main(["build", "--out", str(tmp_path), "--limit", "1", "--jobs", "1"]) == 0
    (entry,) = load(tmp_path)
    frames = [r for r in trace.load(trace_path(tmp_path, entry.id)) if isinstance(r, Frame)]
    assert 9 <= len(frames) <= 90


def test_the_command_prints_plans(capsys):
    assert main(["plan", "--limit", "3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    planned = list(islice(scenarios(0), 3))
    assert len(lines) == 3 and all(s.group in line for s, line in zip(planned, lines, strict=True))
    assert main(["plan", "--limit", "3", "--final"]) == 0
    assert capsys.readouterr().out.splitlines() != lines
