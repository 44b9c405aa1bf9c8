import pytest
from screen_driver import FakeReplay, FakeSource, Script, app_for, settle

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


@pytest.mark.parametrize("state", ["replay", "deep"])
def test_other_screens(snap_compare, state):
    assert snap_compare(app_for(sources()[state]), terminal_size=(120, 40), run_before=settle)


def test_light(snap_compare):
    app = app_for(sources()["faulty"], theme="monitor-light")
    assert snap_compare(app, terminal_size=(120, 40), run_before=settle)


def test_ascii(snap_compare):
    app = app_for(sources()["faulty"], ascii=True)
    assert snap_compare(app, terminal_size=(80, 24), run_before=settle)
