import os
import pty
import threading
from itertools import pairwise

import numpy as np
import pytest
from screen_driver import FakeSource, Script, running, show
from textual.color import Color

from monitor import palette
from monitor.terminal_background import asked, from_variable, is_light
from monitor.view_names import NAMES
from monitor.widgets.line_pane import LinePane

FAULTY = Script(fault_step=200)
# Severe deficiencies after Machado, Oliveira and Fernandes (2009), on linear RGB.
DEFICIENCIES = {
    "none": np.eye(3),
    "protan": np.array([[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]]),
    "deutan": np.array([[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]]),
    "tritan": np.array([[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]]),
}


def linear(colour):
    share = np.array(Color.parse(colour).rgb) / 255
    return np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)


def seen(colour, deficiency):
    """CIELAB of a colour as seen with a deficiency."""
    rgb = np.clip(DEFICIENCIES[deficiency] @ linear(colour), 0, 1)
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    x, y, z = np.cbrt(np.maximum(xyz @ rgb / np.array([0.9505, 1, 1.089]), 1e-4))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def contrast(front, back):
    light, dark = sorted(
        (float(np.array([0.2126, 0.7152, 0.0722]) @ linear(c)) for c in (front, back)), reverse=True
    )
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("deficiency", DEFICIENCIES)
def test_the_colour_blind_theme_tells_states_and_layers_apart(deficiency):
    theme = palette.COLOUR_BLIND
    states = [seen(c, deficiency) for c in (theme.success, theme.warning, theme.error)]
    for index, one in enumerate(states):
        for other in states[index + 1 :]:
            assert np.linalg.norm(one - other) > 25
    colours = palette.palette_for(theme).colours
    for letter, count in (("s", 8), ("h", 12)):
        lightness = [seen(colours[f"{letter}{n}"], deficiency)[0] for n in range(count)]
        assert all(a < b for a, b in pairwise(lightness))


@pytest.mark.parametrize("theme", palette.THEMES, ids=lambda theme: theme.name)
def test_text_can_be_read_on_its_ground(theme):
    colours = palette.palette_for(theme).colours
    for role in ("fg", "accent", "ok", "warn", "bad"):
        assert contrast(colours[role], colours["ground"]) > 4.5
    assert contrast(colours["muted"], colours["ground"]) > 3


@pytest.mark.parametrize("theme", [theme.name for theme in palette.THEMES])
async def test_every_view_draws_in_every_theme(theme):
    async with running(FakeSource(FAULTY), size=(80, 24), theme=theme) as (app, pilot):
        assert app.theme == theme
        for view in NAMES:
            await show(pilot, view)


async def test_no_color_leaves_no_colour(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    async with running(FakeSource(FAULTY), size=(80, 24)) as (app, pilot):
        for view in NAMES:
            await show(pilot, view)
            assert app.view.query(LinePane)
            for strip in app.screen._compositor.render_strips():
                for segment in strip.apply_filter(app._filters[-1], Color.parse("black")):
                    if segment.style is not None:
                        for colour in (segment.style.color, segment.style.bgcolor):
                            assert colour is None or colour.is_default
        await show(pilot, "layers")
        shown = app.view.query_one("#layers-heat").text
        assert "%" in shown, "levels by characters"
        await show(pilot, "diagnosis")
        assert "FAULTY" in app.view.query_one("#bands").text


@pytest.mark.parametrize(
    ("answer", "light"),
    [
        (b"\x1b]11;rgb:ffff/ffff/f0f0\x1b\\\x1b[?62c", True),
        (b"\x1b]11;rgb:10/14/1b\x07\x1b[?62c", False),
        (b"\x1b[?62;22c", None),
        (b"", None),
    ],
)
def test_a_terminal_answers_dark_or_light_or_nothing(answer, light):
    assert is_light(answer) is light


def test_the_question_is_asked_and_the_answer_read():
    ours, terminal = pty.openpty()
    asked_for = []

    def answer():
        while b"[c" not in b"".join(asked_for):
            asked_for.append(os.read(ours, 100))
        os.write(ours, b"\x1b]11;rgb:ffff/ffff/ffff\x1b\\\x1b[?62;22c")

    thread = threading.Thread(target=answer)
    thread.start()
    assert asked(terminal, terminal, timeout=20) is True
    thread.join()
    os.close(ours)
    os.close(terminal)


@pytest.mark.parametrize(
    ("value", "light"),
    [("15;0", False), ("0;15", True), ("0;default;15", True), ("", None), ("0;x", None)],
)
def test_the_variable_some_terminals_set(value, light):
    assert from_variable(value) is light


class Saying(LinePane):
    """Lines as they come from a run."""

    said: tuple[str, ...] = ()

    def compose_lines(self, width, height):
        return [((text, "fg"), (text, "bad")) for text in self.said]


@pytest.mark.parametrize("ascii_only", [False, True])
async def test_whatever_a_run_says_a_line_has_the_width_of_its_pane(ascii_only):
    async with running(ascii=ascii_only) as (app, pilot):
        pane = Saying()
        await app.screen.mount(pane)
        pane.said = ("plain", "日本語" * 3, "\x1b[31m\a", "é–↑", "long " * 90, "")
        await pilot.pause()
        pane.redraw()
        strips = [pane.render_line(y) for y in range(len(pane.said) + 1)]
        assert {strip.cell_length for strip in strips} == {pane.content_size.width}
        for strip in strips:
            assert sum(segment.cell_length for segment in strip) == strip.cell_length
            assert strip.text.isprintable()
            assert strip.text.isascii() or not ascii_only
        assert strips[1].text.startswith("?????????" if ascii_only else "日本語")
