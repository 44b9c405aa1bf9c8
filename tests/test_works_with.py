"""The table of what works with what says what its tests did."""

from __future__ import annotations

import types
from pathlib import Path

import pytest
import works_with

DOCS = Path(__file__).parents[1] / "docs" / "works-with.md"


def item(nodeid, *args, **params):
    markers = [pytest.mark.works_with(*args).mark]
    return types.SimpleNamespace(
        nodeid=nodeid,
        iter_markers=lambda name: markers,
        callspec=types.SimpleNamespace(params=params),
    )


def report(nodeid, outcome, when="call", reason=None):
    told = ("file", 1, f"Skipped: {reason}") if reason else None
    return types.SimpleNamespace(nodeid=nodeid, outcome=outcome, when=when, longrepr=told)


def test_a_row_works_if_all_its_tests_passed(tmp_path):
    table = works_with.Table(tmp_path / "t.md")
    table.pytest_collection_modifyitems(
        [
            item("a", "Trainers", "one"),
            item("b", "Trainers", "one"),
            item("c", "Trainers", "two"),
            item("d", "Families", family="bert"),
            item("e", "Families", other="bert"),
        ]
    )
    for nodeid, outcome in (("a", "passed"), ("b", "failed"), ("d", "passed"), ("e", "failed")):
        table.pytest_runtest_logreport(report(nodeid, outcome))
    table.pytest_runtest_logreport(report("d", "passed", "setup"))
    table.pytest_runtest_logreport(report("c", "skipped", "setup", "not installed"))
    table.pytest_sessionfinish(None)
    lines = (tmp_path / "t.md").read_text().splitlines()
    assert "| one | **fails** | 2 |" in lines
    assert "| two | not tried: not installed | 1 |" in lines
    assert "| bert | works | 1 |" in lines
    assert not any("other" in line for line in lines)


def test_the_table_in_the_docs_has_every_row_and_nothing_fails(request):
    """Every row that a test of this session stands for, in a group of its own."""
    text = DOCS.read_text()
    assert "**fails**" not in text
    table = works_with.Table(DOCS)
    table.pytest_collection_modifyitems(request.session.items)
    parts = {part.partition("\n")[0]: part for part in text.split("\n## ")[1:]}
    for group, name in set(table._of.values()):
        assert f"\n| {name} | works" in parts[group], (group, name)
    for group in ("Model families", "Several ranks", "Trainers", "Without training"):
        assert group in parts
