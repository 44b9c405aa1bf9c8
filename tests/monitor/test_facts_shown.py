"""Facts of the run, and that a metric has heads, are told where a person asks for help."""

import msgspec
from screen_driver import FakeSource, Script, running, settle, show
from textual.widgets import Static

from monitor.help_topics import metric_lines
from monitor.metric_groups import groups_of
from monitor.sources.fake import header
from monitor.sources.source import Batch

HEADS = Script(steps=100, heads=3)


async def test_help_ends_with_what_is_known_of_the_run():
    async with running(FakeSource(HEADS), size=(120, 40)) as (app, pilot):
        await show(pilot, "overview")
        told = {"optimizer": "AdamW (1 group)", "weight decay": "matrices 0.01"}
        found = msgspec.structs.replace(header(HEADS), facts=told, revision=1)
        app.model.take(Batch((found,), "live"))
        await pilot.press("question_mark")
        await settle(pilot)
        lines = str(app.screen.query_one(Static).render()).splitlines()
        assert lines[-3:] == [
            "This run",
            "  optimizer     AdamW (1 group)",
            "  weight decay  matrices 0.01",
        ]


def test_help_of_a_metric_says_whether_heads_have_it():
    groups = groups_of(header(HEADS), ())
    assert "heads" in dict(metric_lines(groups["attention/entropy"], ""))
    assert "heads" not in dict(metric_lines(groups["ffn/in_weight"], ""))
