from screen_driver import FakeReplay, FakeSource, Script, laid_out, running, settle, show
from streams import store

from monitor.keys import KEYS
from monitor.palette_search import places
from monitor.pane_choice import PaneChoice
from monitor.run_catalogue import ListedRun
from monitor.sources.fake import records
from monitor.view_names import NAMES
from monitor.views.graph_view import GraphView
from monitor.widgets.chart_grid import ChartGrid
from monitor.widgets.help_screen import HelpScreen
from monitor.widgets.jump_screen import LETTERS, JumpScreen
from monitor.widgets.key_footer import KeyFooter
from monitor.widgets.status_line import StatusLine
from monitor.widgets.view_bar import ViewBar

FAULTY = Script(fault_step=200)


def test_choosing_goes_round_and_hiding_stops_at_the_last():
    choice = PaneChoice()
    choice.move(["a", "b", "c"], -1)
    assert choice.current == "c"
    choice.move(["a", "b", "c"], 1)
    assert choice.current == "a"
    assert choice.hide("a", ["a", "b", "c"])
    assert (choice.current, choice.alone(["a", "b", "c"])) == ("b", None)
    assert choice.hide("b", ["b", "c"])
    assert choice.alone(["a", "b", "c"]) == "c"
    assert not choice.hide("c", ["c"])
    choice.enlarge("c")
    choice.enlarge("c")
    assert choice.enlarged is None


async def test_every_pane_of_every_view_can_be_alone_and_all_come_back():
    async with running(FakeSource(FAULTY), size=(120, 40)) as (app, pilot):
        for name in NAMES:
            await show(pilot, name)
            view = app.view
            before = {pane.id: pane.region for pane in view.panes if pane.display}
            for pane in before:
                view.choice.current = pane
                await pilot.press("z")
                await pilot.pause()
                await pilot.pause()
                assert view.shown_ids == [pane]
                region = view.query_one(f"#{pane}").region
                assert (region.width, region.height) == view.size, (name, pane, region)
                await pilot.press("escape")
            await laid_out(pilot)
            assert {pane.id: pane.region for pane in view.panes if pane.display} == before


async def test_panes_are_hidden_and_shown_again():
    async with running(FakeSource(FAULTY)) as (app, pilot):
        before = app.view.shown_ids
        await pilot.press("tab")
        assert app.viewing.choice.current == before[0] == "graph"
        assert app.query_one("#graph").has_class("-current")
        await pilot.press("x")
        await laid_out(pilot)
        assert app.view.shown_ids == before[1:]
        assert app.query_one("#right").region.width == 120
        for _ in before[1:]:
            await pilot.press("x")
            await laid_out(pilot)
        assert len(app.view.shown_ids) == 1
        assert "the last pane" in app.query_one(StatusLine).text
        await pilot.press("X")
        await laid_out(pilot)
        assert app.view.shown_ids == before


async def test_jump_mode_leads_to_a_chart_and_to_a_pane():
    async with running(FakeSource(FAULTY)) as (app, pilot):
        await show(pilot, "metrics")
        await pilot.press("w")
        assert isinstance(app.screen, JumpScreen)
        assert len(app.screen.query(".jump-letter")) == app.query_one("#metric-charts").places
        wanted = app.query_one("#metric-charts").panes[2].data.title
        await pilot.press(LETTERS[2])
        await pilot.pause()
        assert not isinstance(app.screen, JumpScreen)
        assert app.viewing.selected == wanted
        await show(pilot, "overview")
        targets = [target.widget.id for target in app.view.targets()]
        await pilot.press("w", LETTERS[targets.index("heatmap")])
        await pilot.pause()
        assert app.viewing.choice.current == "heatmap"
        await pilot.press("enter")
        assert app.viewing.view == "layers"
        await pilot.press("w", "escape")
        await pilot.pause()
        assert app.is_running
        assert app.viewing.view == "layers"


async def test_remapped_keys_are_everywhere(tmp_path):
    keys = {"monitor.help": "f1", "views.show-view-layers": "f4", "training.toggle-view": "n"}
    async with running(FakeSource(FAULTY), keys=keys) as (app, pilot):
        assert "n Pause" in app.query_one(KeyFooter).text
        assert "f1 Help" in app.query_one(KeyFooter).text
        assert "f4 Layers" in app.query_one(ViewBar).text
        await pilot.press("space")
        assert app.viewing.frozen is None
        await pilot.press("n")
        assert app.viewing.frozen is not None
        await pilot.press("f4")
        assert app.viewing.view == "layers"
        await pilot.press("f1")
        assert isinstance(app.screen, HelpScreen)
        assert "  f4 " in str(app.screen.query_one("#help-text").render())
        await pilot.press("f1")
        assert not isinstance(app.screen, HelpScreen)


async def test_what_is_wrong_with_the_settings_is_told_once():
    complaints = ("settings.toml: fps = 900 is not within 0.5 and 30: 30",)
    async with running(
        FakeSource(FAULTY), complaints=complaints, keys={"no.such": "x"}, theme="no-such"
    ) as (app, pilot):
        assert "fps = 900" in app.query_one(StatusLine).text
        assert "2 more" in app.query_one(StatusLine).text
        await pilot.press("]")
        assert "fps" not in app.query_one(StatusLine).text


async def test_settings_are_the_first_choice_of_the_screen():
    async with running(FakeSource(FAULTY), smoothing=0.9, charts=4, axis="time") as (app, pilot):
        await show(pilot, "metrics")
        grid = app.view.query_one(ChartGrid)
        assert grid.places == 4
        assert grid.panes[0].data.note == "EMA 0.9"
        assert grid.panes[0].data.step_of is not None


async def test_the_palette_reaches_charts_components_and_panes():
    async with running(FakeSource(FAULTY)) as (app, pilot):
        found = {name: go for name, _, go in places(app)}
        assert {f"Chart: {key}" for key in app.model.groups} <= set(found)
        found["Component: mask@2"]()
        await laid_out(pilot)
        assert isinstance(app.view, GraphView)
        assert app.view._site == "mask@2"
        found["Chart: attention/entropy"]()
        await laid_out(pilot)
        assert (app.viewing.view, app.viewing.selected) == ("metrics", "attention/entropy")
        found["Heatmap: ffn/grad_norm"]()
        await laid_out(pilot)
        assert app.viewing.heatmap == "ffn/grad_norm"
        await pilot.press("ctrl+p", *"qkv@1")
        for _ in range(200):
            await pilot.pause(0.01)
            options = app.screen.query_one("CommandList")
            if options.option_count:
                break
        await pilot.press("enter")
        await laid_out(pilot)
        assert app.view._site == "qkv@1"


async def test_help_explains_the_component_and_the_cause():
    async with running(FakeSource(FAULTY)) as (app, pilot):
        await show(pilot, "graph")
        titles = [topic.title for topic in app.view.help_topics()]
        assert titles == ["mask@2"]
        await pilot.press("enter")
        titles = [topic.title for topic in app.view.help_topics()]
        assert titles[0] == "mask@2"
        assert titles[1].startswith("mask/")
        await show(pilot, "diagnosis")
        cause, metric = app.view.help_topics()
        assert cause.title.startswith("masking › mask application")
        assert dict(cause.lines)["repair"].startswith("Pass the mask")
        assert metric.title == "mask/leaked"


async def test_the_pane_keys_are_of_the_one_table():
    assert {"next_pane(1)", "enlarge_pane", "hide_pane", "show_panes", "jump_mode"} <= {
        key.action for key in KEYS
    }
    assert records(FAULTY)
    async with running(FakeReplay(FAULTY)) as (app, pilot):
        await pilot.press("tab", "tab", "shift+tab")
        assert app.viewing.choice.current == "graph"


async def test_any_view_is_saved_as_a_picture(tmp_path):
    async with running(FakeSource(FAULTY)) as (app, pilot):
        await show(pilot, "layers")
        path = tmp_path / "layers.svg"
        for expected in ("saved", "exists"):
            await pilot.press("y")
            app.query_one("#prompt-input").value = str(path)
            await pilot.press("enter")
            assert expected in app.query_one(StatusLine).text
        assert path.read_text().startswith("<svg")
        assert "Layers" in path.read_text()
        await pilot.press("y", "escape")
        assert list(tmp_path.iterdir()) == [path]


async def test_the_palette_reaches_other_views_runs_and_explanations(tmp_path):
    path = store(tmp_path / "b.trace", list(records(Script(steps=30))))
    listed = ListedRun("trace", "other-run", "b", "Small", 1.0, path=path)
    source = FakeSource(FAULTY)
    async with running(source, find_runs=lambda: (listed,)) as (app, pilot):
        commands = {c.title: c for c in app.get_system_commands(app.screen)}
        for key in app.keys.here(replay=False):
            assert f"{key.group}: {key.help}" in commands
        grid = next(c for title, c in commands.items() if "how many charts at once" in title)
        assert grid.help == "key g in Metrics"
        grid.callback()
        await laid_out(pilot)
        assert (app.viewing.view, app.viewing.grid) == ("metrics", 1)
        found = {name: go for name, _, go in places(app)}
        found["Explain: masking › mask application"]()
        await pilot.pause()
        shown = " ".join(str(app.screen.query_one("#help-text").render()).split())
        assert "Pass the mask to the attention call" in shown
        await pilot.press("escape")
        await pilot.press("ctrl+p", *"other-run")
        for _ in range(500):
            await pilot.pause(0.01)
            if app.screen.query_one("CommandList").option_count:
                break
        await pilot.press("enter")
        await settle(pilot, lambda: source.closed.is_set() and app.model.step == 29)
        assert app.viewing.view == "overview"
