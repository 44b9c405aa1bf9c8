"""Choosing among runs."""

import os

import msgspec
import pytest

from monitor.sources.source import SourceError
from monitor.targets import describe, first_ranks, pick
from monitor.usage import UsageError
from probe.directories import traces_dir
from probe.registry import new_entry, register


@pytest.fixture(autouse=True)
def places(monkeypatch, tmp_path):
    monkeypatch.setenv("DEFAULTPP_STATE_DIR", str(tmp_path / "state"))


def test_the_only_run_needs_no_question():
    entry = new_entry("bert")
    assert pick([entry], interactive=True, ask=pytest.fail) is entry


def test_several_runs_are_asked_about_until_the_answer_is_one(capsys):
    entries = [new_entry("bert"), new_entry("gpt2")]
    answers = iter(["x", "0", "3", "2"])
    assert pick(entries, interactive=True, ask=lambda text: next(answers)) is entries[1]
    assert "gpt2" in capsys.readouterr().err


def test_enter_means_the_newest():
    entries = [new_entry("bert"), new_entry("gpt2")]
    assert pick(entries, interactive=True, ask=lambda text: "") is entries[0]


def test_without_a_terminal_several_runs_are_named():
    with pytest.raises(UsageError, match=r"bert .*gpt2"):
        pick([new_entry("bert"), new_entry("gpt2")], interactive=False)


def test_no_run_says_how_to_attach_one():
    with pytest.raises(SourceError, match=r"probe\.attach"):
        pick([], interactive=True)


def test_no_run_names_the_one_recorded_last():
    for number, name in enumerate(("older", "newest run", "old")):
        path = traces_dir() / f"{name}.trace"
        path.write_bytes(b"")
        os.utime(path, (1000, [5, 9, 7][number]))
    with pytest.raises(SourceError, match=r"replay '.*newest run\.trace'"):
        pick([], interactive=True)


def test_a_run_of_several_ranks_is_one_run():
    for rank in (1, 0, 2):
        register(new_entry("bert", run="r1", rank=rank, world_size=3))
    assert [(entry.run, entry.rank) for entry in first_ranks()] == [("r1", 0)]


@pytest.mark.parametrize(("age", "text"), [(5, "5 s"), (150, "2 min"), (7300, "2 h"), (2e5, "2 d")])
def test_a_run_is_described_in_one_line(age, text):
    entry = new_entry("bert")
    line = describe(entry, now=entry.created + age)
    assert f"bert  {entry.run}  pid {os.getpid()}" in line
    assert line.endswith(f"started {text} ago")


def test_a_run_elsewhere_names_its_machine():
    entry = msgspec.structs.replace(new_entry("bert"), host="gpu7")
    assert "on gpu7" in describe(entry)
