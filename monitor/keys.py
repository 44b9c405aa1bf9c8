"""Every key of the screen, once: bindings, footer, help, palette and docs are made from this.

What the person remapped is put in its place by :mod:`monitor.key_table`.
"""

from __future__ import annotations

import re
from typing import Literal

from msgspec import Struct

from monitor.view_names import VIEWS, ViewName

When = Literal["always", "live", "replay"]


class Key(Struct, frozen=True):
    """One command. ``keys`` in Textual's names, ``shown`` as a person reads them.

    ``footer`` empty: not in the footer. ``views`` empty: in all of them. Where the footer has too
    little room, keys of the highest ``leaves`` leave first; 0 stays. ``pair`` is the action that
    does the opposite: its key stands beside in the footer.
    """

    keys: str
    shown: str
    action: str
    footer: str
    help: str
    group: str
    when: When = "always"
    views: tuple[ViewName, ...] = ()
    leaves: int = 9
    pair: str = ""

    @property
    def id(self) -> str:
        """Stable name of the command, for remapping: letters, digits, dots and dashes."""
        words = f"{self.group}.{self.action}".replace("-", "minus ")
        return re.sub(r"[^a-zA-Z0-9.]+", "-", words).strip("-").lower()

    def in_mode(self, replay: bool) -> bool:
        """It works on a replay, or on a live run."""
        return self.when in ("always", "replay" if replay else "live")

    @property
    def method(self) -> str:
        """The action without its arguments."""
        return self.action.partition("(")[0]


CHARTS: tuple[ViewName, ...] = ("overview", "metrics")
STEPPED: tuple[ViewName, ...] = ("overview", "diagnosis", "layers", "metrics", "runs")
"""Views with an axis of steps."""
CHARTED: tuple[ViewName, ...] = ("overview", "diagnosis", "graph", "layers", "metrics", "runs")
"""Views with a line chart."""

_SWITCH = tuple(
    Key(view.key, view.key, f"show_view('{view.name}')", "", f"{view.title}: {view.purpose}",
        "Views")
    for view in VIEWS
)  # fmt: skip

KEYS: tuple[Key, ...] = (
    *_SWITCH,
    Key("v", "v", "next_view(1)", "", "next view", "Views"),
    Key("V", "V", "next_view(-1)", "", "previous view", "Views"),
    Key("escape", "Esc", "leave", "", "back: out of a site, off the cursor, out of a zoom",
        "Views"),

    Key("tab", "tab", "next_pane(1)", "", "choose the next pane", "Panes"),
    Key("shift+tab", "shift+tab", "next_pane(-1)", "", "choose the previous pane", "Panes"),
    Key("w", "w", "jump_mode", "Go to", "letters on panes and charts: press one to go there",
        "Panes", leaves=7),
    Key("z", "z", "enlarge_pane", "", "the chosen pane alone, and back", "Panes"),
    Key("x", "x", "hide_pane", "", "hide the chosen pane", "Panes"),
    Key("X", "X", "show_panes", "", "all panes of this view again", "Panes"),

    Key("space", "space", "toggle_play", "Play", "play or pause the replay", "Replay", "replay",
        leaves=0),
    Key("greater_than_sign", ">", "faster", "", "replay at double the speed", "Replay", "replay"),
    Key("less_than_sign", "<", "slower", "Speed", "replay at half the speed", "Replay", "replay",
        leaves=4, pair="faster"),

    Key("space", "space", "toggle_view", "Pause", "pause the view, data keep coming in; then back "
        "to the newest",
        "Training", "live", leaves=0),
    Key("p", "p", "toggle_training", "Pause training", "pause or resume the training; it goes on "
        "by itself when the monitor ends", "Training", "live", leaves=1),
    Key("N", "N", "step_training", "", "one step of a paused training, then paused again",
        "Training", "live", leaves=2),
    Key("B", "B", "breakpoint", "", "stop the training, or the replay, when something comes to "
        "hold: faulty, a category, step 500, training/loss > 5, training/loss nan; several with "
        "commas", "Training"),
    Key("s", "s", "sample", "Sample", "measure the next step", "Training", "live", leaves=6),

    Key("full_stop", ".", "step_forward", "", "one frame on, while paused", "Past"),
    Key("comma", ",", "step_back", "Frame", "one frame back; a live run is shown as it was then, "
        "while data keep coming in", "Past", leaves=7, pair="step_forward"),
    Key("j", "j", "jump", "Jump", "jump to a step", "Past", leaves=6),
    Key("f", "f", "jump_flag", "First flag", "jump to the step that was flagged first; a "
        "replay is read on to it", "Past", leaves=7),

    Key("right", "→", "cursor(1)", "", "cursor one sample on; its values show in every chart",
        "Steps", views=STEPPED),
    Key("left", "←", "cursor(-1)", "Cursor", "cursor one sample back", "Steps", views=STEPPED,
        leaves=4, pair="cursor(1)"),
    Key("shift+right,right_curly_bracket", "}", "cursor(10)", "", "cursor ten samples on",
        "Steps", views=STEPPED),
    Key("shift+left,left_curly_bracket", "{", "cursor(-10)", "", "cursor ten samples back",
        "Steps", views=STEPPED),
    Key("plus,equals_sign", "+", "zoom(0.5)", "Zoom", "zoom in around the cursor; also the wheel",
        "Steps", views=STEPPED, leaves=5, pair="zoom(2.0)"),
    Key("minus", "−", "zoom(2.0)", "", "zoom out", "Steps", views=STEPPED),
    Key("ctrl+right,right_parenthesis", ")", "pan(0.25)", "", "move the zoomed part on", "Steps",
        views=STEPPED),
    Key("ctrl+left,left_parenthesis", "(", "pan(-0.25)", "", "move the zoomed part back", "Steps",
        views=STEPPED),
    Key("0", "0", "zoom_all", "", "all steps again", "Steps", views=STEPPED),
    Key("t", "t", "toggle_time", "", "charts over steps or over wall-clock time", "Steps",
        views=CHARTED),

    Key("slash", "/", "filter", "Filter", "show only charts whose name matches a regex", "Charts",
        views=CHARTS, leaves=3),
    Key("right_square_bracket,down", "]", "next_chart(1)", "", "choose the next chart",
        "Charts", views=CHARTS),
    Key("left_square_bracket,up", "[", "next_chart(-1)", "Chart", "choose the previous chart",
        "Charts", views=CHARTS, leaves=6, pair="next_chart(1)"),
    Key("pagedown", "PgDn", "next_page(1)", "", "next page of charts", "Charts", views=CHARTS),
    Key("pageup", "PgUp", "next_page(-1)", "", "previous page of charts", "Charts", views=CHARTS),
    Key("enter", "Enter", "enter", "Enlarge", "the chosen chart alone, and back", "Charts",
        views=CHARTS, leaves=2),
    Key("g", "g", "grid", "Grid", "how many charts at once: as many as fit, 1, 2, 4, 6, 9, 12",
        "Charts", views=("metrics",), leaves=4),
    Key("l", "l", "toggle_log", "Log", "logarithmic or linear axis of the chosen chart",
        "Charts", views=CHARTS, leaves=6),
    Key("d", "d", "toggle_difference", "", "compared runs: as they are, or one less the baseline, "
        "in charts and heatmaps; then the next one", "Charts", views=(*CHARTS, "layers", "runs"),
        leaves=3),
    Key("k", "k", "next_rank", "", "ranks: all together, or one alone", "Charts",
        views=CHARTED),
    Key("e", "e", "smooth", "Smooth", "smoothing (EMA), stronger each time, then off; the raw "
        "line stays, faint", "Charts", views=CHARTS, leaves=7),

    Key("down", "↓", "choose(1)", "", "next evidence", "Diagnosis", views=("diagnosis",)),
    Key("up", "↑", "choose(-1)", "Evidence", "previous evidence", "Diagnosis",
        views=("diagnosis",), leaves=3, pair="choose(1)"),
    Key("enter", "Enter", "enter", "Its chart", "the chart of the chosen evidence, at its step",
        "Diagnosis", views=("diagnosis",), leaves=1),

    Key("right", "→", "go(1, 0)", "", "next layer", "Graph", views=("graph",)),
    Key("left", "←", "go(-1, 0)", "Layer", "previous layer", "Graph", views=("graph",), leaves=3,
        pair="go(1, 0)"),
    Key("down", "↓", "go(0, 1)", "", "next component; inside a site: next metric", "Graph",
        views=("graph",)),
    Key("up", "↑", "go(0, -1)", "Component", "previous component or metric", "Graph",
        views=("graph",), leaves=3, pair="go(0, 1)"),
    Key("o", "o", "origin", "Origin", "to the likely origin of the fault", "Graph",
        views=("graph",), leaves=4),
    Key("enter", "Enter", "enter", "Its metrics", "enter the site; inside: the chart of the chosen "
        "metric", "Graph", views=("graph",), leaves=1),

    Key("m", "m", "choose_heatmap", "Metric", "choose the heatmap's metric", "Layers",
        views=("overview", "layers"), leaves=5),
    Key("right_square_bracket", "]", "next_heatmap(1)", "", "next metric that has layers",
        "Layers", views=("layers",)),
    Key("left_square_bracket", "[", "next_heatmap(-1)", "Next", "previous metric that has layers",
        "Layers", views=("layers",), leaves=4, pair="next_heatmap(1)"),
    Key("down", "↓", "choose(1)", "", "next layer", "Layers", views=("layers",)),
    Key("up", "↑", "choose(-1)", "Layer", "previous layer", "Layers", views=("layers",), leaves=5,
        pair="choose(1)"),
    Key("enter", "Enter", "enter", "Its chart", "the chart of this metric", "Layers",
        views=("layers",), leaves=3),

    Key("down", "↓", "choose(1)", "", "next event", "Events", views=("events",)),
    Key("up", "↑", "choose(-1)", "Event", "previous event", "Events", views=("events",), leaves=3,
        pair="choose(1)"),
    Key("pagedown", "PgDn", "choose(10)", "", "ten events on", "Events", views=("events",)),
    Key("pageup", "PgUp", "choose(-10)", "", "ten events back", "Events", views=("events",)),
    Key("home", "Home", "choose(-1000000)", "", "first event", "Events", views=("events",)),
    Key("end", "End", "choose(1000000)", "", "newest event, and follow", "Events",
        views=("events",)),
    Key("enter", "Enter", "enter", "To its step", "the charts with the cursor at this step; in a "
        "replay, replay to it", "Events", views=("events",), leaves=1),

    Key("down", "↓", "choose(1)", "", "next run", "Runs", views=("runs",)),
    Key("up", "↑", "choose(-1)", "Run", "previous run", "Runs", views=("runs",), leaves=3,
        pair="choose(1)"),
    Key("enter", "Enter", "enter", "Open", "watch this run, or replay this trace, instead", "Runs",
        views=("runs",), leaves=1),
    Key("c", "c", "compare_run", "Compare", "lay this run's curves over those of the run watched, "
        "or no longer", "Runs", views=("runs",), leaves=2),
    Key("b", "b", "set_baseline", "Baseline", "differences are taken from this run", "Runs",
        views=("runs",), leaves=3),
    Key("right_square_bracket", "]", "next_compared(1)", "", "next chart of the runs compared",
        "Runs", views=("runs",)),
    Key("left_square_bracket", "[", "next_compared(-1)", "Chart", "previous chart of the runs "
        "compared", "Runs", views=("runs",), leaves=6, pair="next_compared(1)"),
    Key("a", "a", "open_address", "", "open a run by its address (ssh://host/run, ipc://...), or a "
        "trace by its path", "Runs", views=("runs",)),
    Key("r", "r", "refresh_runs", "Look again", "look for runs again", "Runs", views=("runs",),
        leaves=2),

    Key("question_mark,h", "?", "help", "Help", "keys, signs, and the meaning of the chosen metric",
        "Monitor", leaves=0),
    Key("ctrl+p", "ctrl+p", "command_palette", "", "command palette: every command, chart and "
        "component by name, and the themes", "Monitor"),
    Key("y", "y", "picture", "", "save what is on screen as an SVG picture", "Monitor"),
    Key("ctrl+z", "ctrl+z", "suspend_process", "", "put the monitor into the background",
        "Monitor"),
    Key("q", "q", "quit", "Quit", "quit; the training goes on", "Monitor", leaves=0),
)  # fmt: skip
