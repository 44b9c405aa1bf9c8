"""What the docs say of the screen is what the screen does."""

import re
from pathlib import Path

import pytest
from scripted_engine import ScriptedEngine
from streams import a_run, store

from monitor import pictures
from monitor.keys_page import as_markdown
from monitor.settings import EXAMPLE
from monitor.view_names import NAMES, VIEWS

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_of_keys_is_the_key_table():
    made = "python -m monitor.keys_page > docs/keys.md"
    assert (DOCS / "keys.md").read_text() == as_markdown(), made


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.name)
def test_every_view_is_described_and_pictured(view):
    text = (DOCS / "monitor.md").read_text()
    assert f"## {view.title} (`{view.key}`)" in text
    assert f"views/{view.name}.svg" in text
    assert (DOCS / "views" / f"{view.name}.svg").read_text().startswith("<svg")


def test_the_settings_shown_are_settings():
    shown = re.search(r"```toml\n(.*?)```", (DOCS / "monitor.md").read_text(), re.DOTALL)[1]
    assert shown.replace("(keys.md)", "(docs/keys.md)") == EXAMPLE


async def test_pictures_are_made_of_a_trace(tmp_path):
    trace = store(tmp_path / "small.trace", a_run())
    await pictures.take(trace, tmp_path / "docs", ScriptedEngine)
    for name in NAMES:
        picture = (tmp_path / "docs" / "views" / f"{name}.svg").read_text()
        assert str(tmp_path) not in picture
    assert (tmp_path / "docs" / "screen.svg").exists()
