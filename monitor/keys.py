"""Every key of the main screen, once: bindings, footer, help and palette are made from this."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from textual.binding import Binding

When = Literal["always", "live", "replay"]


@dataclass(frozen=True)
class Key:
    """One command. ``keys`` in Textual's names, the first is shown; ``footer`` empty: help only."""

    keys: str
    shown: str
    action: str
    footer: str
    help: str
    group: str
    when: When = "always"


KEYS: tuple[Key, ...] = (
    Key("space", "space", "toggle_view", "Pause", "pause the view; data keeps coming in", "View"),
    Key("space", "space", "toggle_play", "Play", "play or pause the replay", "Replay", "replay"),
    Key("p", "p", "toggle_training", "Pause training", "pause or resume the training; it goes on "
        "by itself when the monitor ends", "Training", "live"),
    Key("s", "s", "sample", "Sample", "measure the next step", "Training", "live"),
    Key("less_than_sign", "<", "slower", "", "replay at half the speed", "Replay", "replay"),
    Key("greater_than_sign", ">", "faster", "Speed", "replay at double the speed", "Replay",
        "replay"),
    Key("full_stop", ".", "step_forward", "Step", "one frame on, while paused", "Replay", "replay"),
    Key("comma", ",", "step_back", "", "one frame back, while paused", "Replay", "replay"),
    Key("j", "j", "jump", "Jump", "jump to a step", "Replay", "replay"),
    Key("f", "f", "jump_flag", "First flag", "jump to the step that was flagged first", "Replay",
        "replay"),
    Key("slash", "/", "filter", "Filter", "show only charts whose name matches a regex", "Charts"),
    Key("right_square_bracket,right,down", "]", "next_chart", "Next", "choose the next chart",
        "Charts"),
    Key("left_square_bracket,left,up", "[", "previous_chart", "", "choose the previous chart",
        "Charts"),
    Key("pagedown", "PgDn", "next_page", "", "next page of charts", "Charts"),
    Key("pageup", "PgUp", "previous_page", "", "previous page of charts", "Charts"),
    Key("l", "l", "toggle_log", "Log", "logarithmic or linear axis of the chosen chart", "Charts"),
    Key("m", "m", "choose_heatmap", "Heatmap", "choose the heatmap's metric", "Charts"),
    Key("v", "v", "next_view", "View", "overview, charts, heatmap or events in the large area",
        "View"),
    Key("question_mark,h", "?", "help", "Help", "keys, signs, and the meaning of the chosen metric",
        "Monitor"),
    Key("ctrl+z", "ctrl+z", "suspend_process", "", "put the monitor into the background",
        "Monitor"),
    Key("q", "q", "quit", "Quit", "quit; the training goes on", "Monitor"),
)  # fmt: skip


def keys_for(replay: bool) -> tuple[Key, ...]:
    """The keys that work on a replay, or on a live run. The more special one wins a key."""
    mode = "replay" if replay else "live"
    special = {key.keys for key in KEYS if key.when == mode}
    return tuple(
        key
        for key in KEYS
        if key.when == mode or (key.when == "always" and key.keys not in special)
    )


def bindings() -> list[Binding]:
    """Textual bindings with ids, so that users can remap them.

    In a replay ``space`` plays instead of pausing the view: the action itself decides.
    """
    return [
        Binding(key.keys, key.action, key.help, show=False, id=key.action)
        for key in KEYS
        if key.action != "toggle_play"
    ]


def works(action: str, replay: bool) -> bool:
    """The action belongs to this kind of source; actions without a key always work."""
    found = [key.when for key in KEYS if key.action == action]
    return not found or bool({"always", "replay" if replay else "live"} & set(found))
