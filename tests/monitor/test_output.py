"""What is written to the terminal shows what Textual would have written, in fewer bytes."""

import random
import re

import pytest
from rich.color import ColorSystem
from rich.segment import Segment
from rich.style import Style
from screen_driver import FakeSource, Script, running, show
from textual._compositor import Compositor
from textual.geometry import Region
from textual.strip import Strip

from monitor.frugal_output import drawn, fewer
from monitor.view_names import NAMES

SEQUENCE = re.compile("\x1b\\[([0-9;]*)([mH])|(\n)|([^\x1b\n])")
SHOWN_ON_SPACES = {4, 7, 9}


def cells(written):
    """What a terminal shows: by line and column the character and its colours. The colour of a
    space's foreground, which nobody sees, is left out."""
    shown, line, column = {}, 0, 0
    look = {"front": "", "ground": "", "other": frozenset()}
    rest = SEQUENCE.sub("", written)
    assert not rest, f"unknown: {rest!r}"
    for numbers, kind, newline, character in SEQUENCE.findall(written):
        if kind == "H":
            line, column = (int(number) - 1 for number in (numbers or "1;1").split(";"))
        elif kind == "m":
            look = look_after(look, numbers.split(";"))
        elif newline:
            line += 1
        else:
            blank = character == " " and not look["other"] & SHOWN_ON_SPACES
            front = "" if blank else look["front"]
            other = look["other"] & SHOWN_ON_SPACES if blank else look["other"]
            shown[line, column] = (character, front, look["ground"], other)
            column += 1
    assert look == {"front": "", "ground": "", "other": frozenset()}, "ends without colours"
    return shown


FRONTS = {*range(30, 40), *range(90, 98)}
GROUNDS = {*range(40, 50), *range(100, 108)}


def look_after(look, codes):
    look, codes = dict(look), [int(code or 0) for code in codes]
    while codes:
        code = codes.pop(0)
        part = "front" if code in FRONTS else "ground" if code in GROUNDS else "other"
        if code == 0:
            look = {"front": "", "ground": "", "other": frozenset()}
        elif code in (38, 48):
            count = 4 if codes[0] == 2 else 2
            look[part] = (code, *codes[:count])
            del codes[:count]
        elif part == "other":
            look["other"] |= {code}
        else:
            look[part] = "" if code in (39, 49) else code
    return look


def textuals_own(screen):
    """What Textual's compositor writes for the whole screen."""
    compositor = screen._compositor
    chops = Compositor._render_chops(compositor, screen.region, lambda line: True)
    lines = [[segment for strip in line.values() for segment in strip] for line in chops]
    return "\n".join(
        f"\x1b[{number + 1};1H" + "".join(coloured(*segment) for segment in line)
        for number, line in enumerate(lines)
    )


def coloured(text, style, _):
    if style is None:
        return text
    style._ansi = None  # a style remembers the colours of the console it was first drawn on
    return Strip.render_style(style, text, ColorSystem.STANDARD)


@pytest.mark.parametrize("size", [(80, 24), (204, 60)])
async def test_a_picture_is_textuals_in_fewer_bytes(size):
    picked = random.Random(0)
    async with running(FakeSource(Script(fault_step=200)), size=size) as (app, pilot):
        screen, app.console._color_system = app.screen, ColorSystem.STANDARD
        for view in NAMES:
            await show(pilot, view)
            own = textuals_own(screen)
            wanted = cells(own)
            assert len(wanted) == size[0] * size[1]
            screen._compositor._dirty_regions = {screen.region}
            whole = screen._compositor.render_update().render_segments(app.console)
            assert screen._compositor.render_update() is None, "it is drawn once"
            assert cells(whole) == wanted
            assert cells(fewer(own)) == wanted
            assert len(whole) <= len(fewer(own)) < len(own)
            assert fewer(whole) == whole
            for _ in range(20):
                x, y = picked.randrange(size[0]), picked.randrange(size[1])
                part = Region(x, y, picked.randint(1, size[0] - x), picked.randint(1, 5))
                part = part.intersection(screen.region)
                screen._compositor._dirty_regions = {part, Region(0, 0, 1, 1)}
                update = screen._compositor.render_update().render_segments(app.console)
                drawn_anew = cells(update)
                assert {(line, column) for column in part.column_range for line in part.line_range
                        } <= set(drawn_anew)  # fmt: skip
                assert all(wanted[place] == look for place, look in drawn_anew.items())


async def test_nothing_is_drawn_where_nothing_changed():
    async with running() as (app, _):
        app.screen._compositor._dirty_regions = set()
        assert app.screen._compositor.render_update() is None


def test_a_colour_is_written_where_it_changes_only():
    red, bold = Style(color="red"), Style(color="red", bold=True)
    strips = [
        (0, 0, Strip([Segment("one", red), Segment("  ", Style()), Segment("two", red)])),
        (4, 2, Strip([Segment("x", red), Segment("plain"), Segment("y", bold)])),
        (11, 2, Strip([Segment("next")])),
        (20, 2, Strip([Segment("far")])),
    ]
    written = drawn(strips, ColorSystem.STANDARD)
    assert written == (
        "\x1b[1;1H\x1b[31mone  two\x1b[3;5Hx\x1b[0mplain\x1b[1;31my\x1b[0mnext\x1b[3;21Hfar"
    )


def test_an_underlined_space_is_seen():
    lined = Style(underline=True, color="red")
    written = drawn([(0, 0, Strip([Segment(" ", lined), Segment(" ")]))], ColorSystem.STANDARD)
    assert written == "\x1b[1;1H\x1b[4;31m \x1b[0m "
