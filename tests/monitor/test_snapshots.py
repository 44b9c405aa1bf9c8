from pathlib import Path

import msgspec
import pytest
from screen_driver import FakeReplay, FakeSource, Script, app_for, laid_out, settle, show
from streams import store

from monitor.run_catalogue import ListedRun
from monitor.sources.fake import records
from monitor.view_names import NAMES
from probe.catalogue import METRICS as CATALOGUE

# A fixed choice, so that a metric added elsewhere changes no picture.
METRICS = tuple(
    metric
    for metric in CATALOGUE
    if metric.name
    in {"entropy", "max_weight", "leaked", "padding_mass", "cross_mass", "branch_ratio", "loss",
        "grad_norm", "learning_rate", "cos_qk", "formula_error", "logit_std", "cka", "dead_neurons"}
)  # fmt: skip
SIZES = [(80, 24), (120, 40), (204, 60)]


def sources():
    faulty = Script(fault_step=200, nan_steps=(120, 121), metrics=METRICS)
    lost = "The training process is gone; everything read so far stays here."
    return {
        "healthy": FakeSource(Script(metrics=METRICS)),
        "faulty": FakeSource(faulty),
        "lost": FakeSource(faulty, last="lost", text=lost),
        "replay": FakeReplay(faulty),
        "deep": FakeSource(Script(fault_step=200, layers=24, metrics=METRICS)),
    }


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("state", ["healthy", "faulty", "lost"])
def test_screen(snap_compare, state, size):
    assert snap_compare(app_for(sources()[state]), terminal_size=size, run_before=settle)


def found_runs():
    """Fixed ages: no clock is read."""
    return (
        ListedRun("live", "bert-wikitext", "20260101-000000-bert", "pid 1", 7260.0),
        ListedRun("trace", "gpt2", "20251231-101500-gpt2", "GPT2LMHeadModel, 12.4 MB", 86400.0),
    )


def seen_in(view, *keys):
    """Goes to a view and presses keys there, before the picture is taken."""

    async def before(pilot):
        await settle(pilot)
        await show(pilot, view)
        await pilot.app.workers.wait_for_complete()
        await pilot.press(*keys)
        await laid_out(pilot)

    return before


PRESSED = {
    "diagnosis": ("down",),
    "graph": ("enter", "down"),
    "layers": ("left", "left"),
    "metrics": ("left", "left", "plus", "e"),
    "events": ("up", "up"),
}


@pytest.mark.parametrize(
    "size",
    [SIZES[0], pytest.param(SIZES[1], marks=pytest.mark.matrix), SIZES[2]],
    ids=lambda size: f"{size[0]}x{size[1]}",
)
@pytest.mark.parametrize("view", NAMES[1:])
def test_view(snap_compare, view, size):
    before = seen_in(view, *PRESSED.get(view, ()))
    app = app_for(sources()["faulty"], find_runs=found_runs)
    assert snap_compare(app, terminal_size=size, run_before=before)


def every_view_in(usual):
    """Every view in every size; all but the usual size are looked at on demand."""
    return [
        pytest.param(
            view,
            size,
            id=f"{view}-{size[0]}x{size[1]}",
            marks=() if size == usual else pytest.mark.matrix,
        )
        for view in NAMES
        for size in SIZES
    ]


@pytest.mark.parametrize(("view", "size"), every_view_in((80, 24)))
def test_view_in_ascii(snap_compare, view, size):
    app = app_for(sources()["faulty"], ascii=True, find_runs=found_runs)
    assert snap_compare(app, terminal_size=size, run_before=seen_in(view))


@pytest.mark.parametrize(("view", "size"), every_view_in((120, 40)))
def test_view_in_light(snap_compare, view, size):
    app = app_for(sources()["faulty"], theme="monitor-light", find_runs=found_runs)
    assert snap_compare(app, terminal_size=size, run_before=seen_in(view))


def test_looking_back(snap_compare):
    async def before(pilot):
        await settle(pilot)
        await pilot.press("j", *"150", "enter", "tab", "z")
        await laid_out(pilot)

    app = app_for(sources()["faulty"])
    assert snap_compare(app, terminal_size=(80, 24), run_before=before)


def test_jump_mode(snap_compare):
    async def before(pilot):
        await settle(pilot)
        await pilot.press("w")
        await pilot.pause()

    app = app_for(sources()["faulty"])
    assert snap_compare(app, terminal_size=(120, 40), run_before=before)


def read_and_diagnosed(other):
    found = other.diagnosis.diagnosis
    return other.model.step == 299 and found is not None and found.last_step == 290


def test_runs_compared_over_time(snap_compare, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the path is on the picture
    other = list(records(Script(metrics=METRICS, steps=300, seed=7)))
    other[0] = msgspec.structs.replace(other[0], run="other", name="other-bert")
    path = store(Path("other.trace"), other)
    listed = ListedRun("trace", "other-bert", "other", "BertForMaskedLM", 2.0, path=path)

    async def before(pilot):
        app = pilot.app
        await settle(pilot)
        await show(pilot, "runs")
        await app.workers.wait_for_complete()
        await pilot.press("down", "down", "c")
        await settle(pilot, lambda: app.comparison and read_and_diagnosed(app.comparison.runs[0]))
        await pilot.press("t")
        await laid_out(pilot)

    app = app_for(sources()["faulty"], find_runs=lambda: (*found_runs(), listed))
    assert snap_compare(app, terminal_size=(120, 40), run_before=before)


def test_view_for_any_colour_vision(snap_compare):
    app = app_for(sources()["faulty"], theme="monitor-colour-blind")
    assert snap_compare(app, terminal_size=(120, 40), run_before=seen_in("metrics"))


@pytest.mark.parametrize("state", ["replay", "deep"])
def test_other_screens(snap_compare, state):
    assert snap_compare(app_for(sources()[state]), terminal_size=(120, 40), run_before=settle)
