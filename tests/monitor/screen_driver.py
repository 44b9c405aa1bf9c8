"""Runs the app without a terminal until it has taken in all of a scripted run."""

from contextlib import asynccontextmanager

from msgspec.structs import fields
from scripted_engine import ScriptedEngine

from monitor.app import MonitorApp
from monitor.settings import Settings
from monitor.sources.fake import FakeReplay, FakeSource, Script
from monitor.sources.source import Batch
from monitor.widgets.line_pane import LinePane

SETTINGS = [field.name for field in fields(Settings)]


class GatedSource(FakeSource):
    """Gives no more than ``allowed`` records until the test allows more."""

    def __init__(self, script, allowed):
        super().__init__(script, per_read=1)
        self.allowed = allowed

    def read(self, limit=500, timeout=0.25):
        if self._at >= self.allowed:
            return Batch(link="live", state=self._state, overhead=0.013)
        return super().read(limit, timeout)


def no_runs():
    return ()


def app_for(source=None, **options):
    """``find_runs`` finds nothing unless told otherwise: tests do not look at this machine."""
    options = {"find_runs": no_runs} | options
    chosen = {name: options.pop(name) for name in SETTINGS if name in options}
    options.setdefault("settings", Settings(**chosen))
    return MonitorApp(source or FakeSource(Script()), engine_factory=ScriptedEngine, **options)


async def settle(pilot, condition=lambda: True):
    """Until everything read is drawn and diagnosed, and the condition holds."""
    app = pilot.app
    for _ in range(2000):
        await pilot.pause(0.005)
        app.tick()
        caught_up = app.model.frames > 0 and app.diagnosing.idle
        if caught_up and app.diagnosis.diagnosis is not None and condition():
            frames = app.diagnosis.diagnosis.frames
            if frames == app.model.frames or app.diagnosis.phase == "failed":
                break
    else:
        raise AssertionError("the screen never settled")
    await laid_out(pilot)


async def laid_out(pilot):
    """Until drawing again changes nothing: panes size their parts in turn."""
    app = pilot.app
    before, same = None, 0
    for _ in range(2000):
        app.tick()
        app.draw()
        await pilot.pause()
        panes = app.screen_stack[0].query(LinePane)
        now = [(id(pane), pane.region, pane.lines) for pane in panes if pane.display]
        ready = app.view is not None and app.view.size.width
        same = same + 1 if ready and now == before else 0
        before = now
        if same == 2:
            return
    raise AssertionError("the screen never came to rest")


async def show(pilot, view):
    """Switch to a view, as its key does."""
    pilot.app.action_show_view(view)
    await laid_out(pilot)


@asynccontextmanager
async def running(source=None, size=(120, 40), **options):
    app = app_for(source, **options)
    async with app.run_test(size=size) as pilot:
        await settle(pilot)
        yield app, pilot


__all__ = [
    "FakeReplay",
    "FakeSource",
    "GatedSource",
    "Script",
    "app_for",
    "laid_out",
    "running",
    "settle",
    "show",
]
