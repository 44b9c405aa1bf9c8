"""Random keys, clicks and sizes while a run misbehaves: the screen stays, whatever comes."""

import asyncio
import random
from collections import deque

import msgspec
import numpy as np
from screen_driver import app_for
from textual.events import MouseScrollDown, MouseScrollLeft, MouseScrollRight, MouseScrollUp

from monitor.keys import KEYS
from monitor.sources.fake import Script, records
from monitor.sources.source import Batch
from monitor.view_names import NAMES
from monitor.widgets.line_pane import LinePane
from monitor.widgets.run_header import RunHeader
from probe.schema import End, Event, Frame, Header, Scalars

SEED = 20260101
ROUNDS = 60
SIZES = [(80, 24), (120, 40), (204, 60), (40, 12), (20, 5), (160, 30)]
WHEELS = (MouseScrollUp, MouseScrollUp, MouseScrollDown, MouseScrollLeft, MouseScrollRight)
LEFT_OUT = {"quit", "suspend_process"}
TYPED = ["x", "a", "backspace", "enter", "escape", "tab", "left_parenthesis", "home", "f5"]
ANSWERS_WITHIN = 60.0
"""Seconds: far beyond what any key takes, so that only a freeze fails."""


class HostileSource:
    """A run that sends what no run should."""

    title = "hostile"

    def __init__(self, dice):
        self._dice = dice
        script = Script(steps=600, every=5, layers=3, fault_step=150, nan_steps=(40, 41))
        self._rest = deque(records(script))
        self._all = tuple(self._rest)
        self._link = "live"
        self._waiting = deque()
        self._prepared = 0
        self.closed = False

    def prepare(self):
        """What the next reads will bring, decided in the test's own thread: same every time."""
        batch = [self._rest.popleft() for _ in range(min(6, len(self._rest)))]
        kind = self._dice.choice(
            ["plain"] * 4 + ["gap", "values", "short", "header", "revised", "link", "odd", "again"]
        )
        frames = [r for r in batch if isinstance(r, Frame)]
        if kind == "gap":
            batch = batch[3:]
        elif kind == "values" and frames:
            bad = np.array(frames[0].array)
            bad[:: self._dice.randint(1, 7)] = self._dice.choice([np.nan, np.inf, -np.inf, 3e38])
            batch.append(msgspec.structs.replace(frames[0], values=bad.tobytes()))
        elif kind == "short" and frames:
            batch.append(msgspec.structs.replace(frames[0], values=b"\0\0\0\0"))
        elif kind == "header":
            batch = [self._all[0], *batch]
        elif kind == "revised":
            first: Header = self._all[0]
            batch.append(
                msgspec.structs.replace(
                    first, revision=self._dice.randint(1, 9), columns=first.columns[::2]
                )
            )
        elif kind == "link":
            self._link = self._dice.choice(
                ["live", "silent", "lost", "lost", "ended", "connecting"]
            )
        elif kind == "odd":
            batch.append(
                Event(seq=1, step=-5, time=float("nan"), kind="?" * 40, text="\x1b[31m" * 9)
            )
            batch.append(Scalars(seq=2, names=("loss", "x/y"), steps=(), times=(), values=b""))
            batch.append(End(seq=3, step=10**12, time=0.0, reason="\n\n"))
        elif kind == "again":
            self._rest.extendleft(reversed(self._all[1:30]))
        self._prepared += 1
        if self._prepared % 20 == 0:
            self._link = "lost"
        text = self._dice.choice(["", "it said [bold]this[/] and �"])
        self._waiting.append(Batch(tuple(batch), link=self._link, state="training", text=text))

    def read(self, limit=500, timeout=0.25):
        return self._waiting.popleft() if self._waiting else Batch(link=self._link)

    def send(self, control):
        return f"{control.action}: [/] no"

    def close(self):
        self.closed = True


def turn_the_wheel(app, kind, at, shift):
    """Over whatever stands at a place of the screen."""
    widget, region = app.screen.get_widget_at(*at)
    inside = {"x": at[0] - region.x, "y": at[1] - region.y, "screen_x": at[0], "screen_y": at[1]}
    held = {"shift": shift, "meta": False, "ctrl": False}
    widget.post_message(kind(widget, **inside, **held, delta_x=0, delta_y=0, button=0))


async def test_random_keys_and_sizes_while_the_run_misbehaves(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # one of the keys saves a picture
    dice = random.Random(SEED)
    source = HostileSource(random.Random(SEED + 1))
    keys = [k for key in KEYS if key.method not in LEFT_OUT for k in key.keys.split(",")]
    app = app_for(source)
    views, links = set(), set()
    async with app.run_test(size=(120, 40)) as pilot:
        for number in range(ROUNDS):
            source.prepare()
            if number % 8 == 0:
                app.action_show_view(NAMES[number // 8 % len(NAMES)])
            what = dice.random()
            if what < 0.08:
                size = dice.choice(SIZES)
                await asyncio.wait_for(pilot.resize_terminal(*size), ANSWERS_WITHIN)
            elif what < 0.16:
                at = (dice.randrange(app.size.width), dice.randrange(app.size.height))
                if dice.random() < 0.4:
                    turn_the_wheel(app, dice.choice(WHEELS), at, dice.random() < 0.3)
                else:
                    times = dice.choice((1, 1, 2))
                    clicked = pilot.click(offset=at, times=times)
                    await asyncio.wait_for(clicked, ANSWERS_WITHIN)
            else:
                pressed = [dice.choice(keys if dice.random() < 0.85 else TYPED) for _ in range(3)]
                await asyncio.wait_for(pilot.press(*pressed), ANSWERS_WITHIN)
            app.tick()
            if number % 10 == 0:
                await asyncio.wait_for(pilot.pause(), ANSWERS_WITHIN)
            assert app.is_running, f"ended in round {number}"
            views.add(app.viewing.view)
            links.add(app.model.link)
            for pane in app.screen_stack[0].query(LinePane) if number % 6 == 0 else ():
                for y in range(pane.size.height):
                    assert pane.render_line(y).text.isprintable(), pane
        assert views == set(NAMES)
        assert {"live", "lost"} <= links
        assert app.model.ignored > 0
        # It still draws and still takes keys.
        await pilot.resize_terminal(120, 40)
        for _ in range(3):
            await pilot.press("escape")
        await pilot.press("1")
        await pilot.pause()
        app.draw()
        assert app.viewing.view == "overview"
        assert app.query_one(RunHeader).text
    assert source.closed
