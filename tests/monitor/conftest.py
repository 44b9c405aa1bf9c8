"""Screens are waited for by what is left to do, not by the clock."""

import asyncio

import pytest
import textual.app
import textual.pilot
from textual._context import active_app


async def nothing_left_to_do(*_: float) -> None:
    """Until the event loop waits for a thread or the outside, and what is to be laid out and drawn
    is. Textual's own pilot sleeps 20 ms at a time, until the processor seems idle."""
    loop = asyncio.get_running_loop()
    for _ in range(3):  # what is laid out may change what is drawn, and the other way round
        quiet = 0
        while quiet < 3:
            await asyncio.sleep(0)
            quiet = 0 if loop._ready else quiet + 1
        app = active_app.get(None)
        if app is not None and app._screen_stack:
            app.screen._on_timer_update()


@pytest.fixture(autouse=True, scope="session")
def _no_sleeping_pilot():
    patch = pytest.MonkeyPatch()
    for module in (textual.app, textual.pilot):
        patch.setattr(module, "wait_for_idle", nothing_left_to_do)
    yield
    patch.undo()
