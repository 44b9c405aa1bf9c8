"""Runs the app without a terminal until it has taken in all of a scripted run."""

from contextlib import asynccontextmanager

from scripted_engine import ScriptedEngine

from monitor.app import MonitorApp
from monitor.sources.fake import FakeReplay, FakeSource, Script
from monitor.sources.source import Batch


class GatedSource(FakeSource):
    """Gives no more than ``allowed`` records until the test allows more."""

    def __init__(self, script, allowed):
        super().__init__(script, per_read=1)
        self.allowed = allowed

    def read(self, limit=500, timeout=0.25):
        if self._at >= self.allowed:
            return Batch(link="live", state=self._state, overhead=0.013)
        return super().read(limit, timeout)


def app_for(source=None, **options):
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
    app.draw()
    await pilot.pause()
    app.draw()
    await pilot.pause()


@asynccontextmanager
async def running(source=None, size=(120, 40), **options):
    app = app_for(source, **options)
    async with app.run_test(size=size) as pilot:
        await settle(pilot)
        yield app, pilot


__all__ = ["FakeReplay", "FakeSource", "GatedSource", "Script", "app_for", "running", "settle"]
