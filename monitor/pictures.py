"""Pictures of every view, for the docs: ``python -m monitor.pictures [TRACE] [--into docs]``.

Without a trace the demo is run and recorded first. Nothing of this machine gets into a picture but
what the trace holds.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from monitor.run_catalogue import ListedRun
from monitor.view_names import NAMES, ViewName, title_of

if TYPE_CHECKING:
    from textual.pilot import Pilot

    from monitor.app import MonitorApp
    from monitor.diagnosing import EngineFactory

SIZE = (120, 40)
TITLE = "demo.trace"
PRESSED: dict[ViewName, tuple[str, ...]] = {
    "diagnosis": (),
    "graph": ("enter",),
    "layers": (),
    "metrics": ("g", "g", "g", "g", *["left"] * 40, "e", "e"),
    "events": ("up",),
}
"""Keys that bring out what a view can do."""
_PATIENCE = 30_000


def main(arguments: Sequence[str] | None = None) -> None:
    """Write ``screen.svg`` and ``views/NAME.svg``."""
    parser = argparse.ArgumentParser(prog="python -m monitor.pictures", description=__doc__)
    parser.add_argument("trace", nargs="?", type=Path, help="a recorded run (default: the demo's)")
    parser.add_argument("--into", type=Path, default=Path("docs"), metavar="DIRECTORY")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as directory:
        trace = options.trace or _recorded(Path(directory) / TITLE)
        asyncio.run(take(trace, options.into))


def _recorded(path: Path) -> Path:
    from monitor.cli import main as command_line

    command_line(["demo", "--headless", "--trace", str(path)])
    return path


async def take(trace: Path, into: Path, engine_factory: EngineFactory | None = None) -> None:
    """Write the pictures of a trace; ``engine_factory`` as for the app."""
    from monitor.app import MonitorApp
    from monitor.settings import Settings
    from monitor.sources.replay import FASTEST, ReplaySource

    def this_one() -> tuple[ListedRun, ...]:
        path = Path(TITLE)
        return (ListedRun("trace", "demo-bert", "demo", "BertForMaskedLM", 60.0, path=path),)

    (into / "views").mkdir(parents=True, exist_ok=True)
    source = ReplaySource(trace, speed=FASTEST)
    app = MonitorApp(
        source,
        engine_factory=engine_factory,
        title=TITLE,
        settings=Settings(theme="monitor-dark"),
        find_runs=this_one,
    )
    async with app.run_test(size=SIZE) as pilot:
        await _caught_up(app, pilot)
        for name in NAMES:
            app.viewing.steps.cursor = None
            app.action_show_view(name)
            await _still(app, pilot)
            await pilot.press(*PRESSED.get(name, ()))
            await _still(app, pilot)
            picture = app.export_screenshot(title=f"defaultpp-monitor · {title_of(name)}")
            (into / "views" / f"{name}.svg").write_text(picture)
            print(into / "views" / f"{name}.svg")
        app.viewing.smoothing, app.viewing.steps.cursor = 0.0, None
        app.action_show_view("overview")
        await _still(app, pilot)
        (into / "screen.svg").write_text(app.export_screenshot(title="defaultpp-monitor"))
        print(into / "screen.svg")


async def _caught_up(app: MonitorApp, pilot: Pilot[None]) -> None:
    """Until the whole trace was read and diagnosed."""
    for _ in range(_PATIENCE):
        await pilot.pause(0.01)
        app.tick()
        position = app.replaying.position if app.replaying else None
        found = app.diagnosis.diagnosis
        at_end = position is not None and position.record >= position.records > 0
        if at_end and found is not None and found.frames == app.model.frames:
            return
    raise SystemExit("the trace was not diagnosed in time")


async def _still(app: MonitorApp, pilot: Pilot[None]) -> None:
    """Until what was switched to is laid out and drawn."""
    await app.workers.wait_for_complete()
    for _ in range(4):
        await pilot.pause(0.02)
        app.draw()
    await pilot.pause()


if __name__ == "__main__":
    main()
