"""The help: what is under the cursor, keys from the key table, the signs."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

from rich.text import Text
from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Static

from monitor import glyphs
from monitor.help_topics import HelpTopic
from monitor.keys import Key
from monitor.palette import Palette, palette_for

_SIGNS = (
    (f"{glyphs.BEAD} 1–9", "suspicion of a component in tenths, below 0.1 a dot"),
    (glyphs.ORIGIN, "where the fault seems to start; thick lines: the way it takes"),
    (glyphs.FAULT_MARK, "a fault was injected on purpose"),
    (glyphs.FLAG_MARK, "flagged: the verdict first held; a chart that speaks for it"),
    (glyphs.EVENT_MARK, "another event, see the event log"),
    (
        f"{glyphs.NAN_MARK} {glyphs.PLUS_INFINITY_MARK} {glyphs.MINUS_INFINITY_MARK}",
        "NaN, +infinity, −infinity; a curve is never drawn across them",
    ),
)


_WIDEST = 92
"""Cells of the box at most, as the style sheet says."""
_NAME = 11
"""Cells of the names at the left."""


def help_text(
    keys: Sequence[Key],
    topics: Sequence[HelpTopic],
    palette: Palette,
    facts: Mapping[str, str],
    width: int,
) -> Text:
    """The whole help as one text of that width; ``facts``: what is told of the run, by name."""
    text = Text()

    def entry(name: str, role: str, told: str, room: int = _NAME) -> None:
        lines = textwrap.wrap(told, max(20, width - room - 2)) or [""]
        text.append(f"  {name:<{room}}", palette.style(role))
        text.append(("\n" + " " * (room + 2)).join(lines) + "\n", palette.style("fg"))

    for topic in topics:
        text.append(f"{topic.title}\n", palette.style("accent bold"))
        for name, sentence in topic.lines:
            entry(name, "muted", sentence)
        text.append("\n")
    for heading in dict.fromkeys(key.group for key in keys):
        text.append(f"{heading}\n", palette.style("fg bold"))
        for key in (key for key in keys if key.group == heading):
            entry(key.shown, "accent", key.help)
    text.append("Signs\n", palette.style("fg bold"))
    for sign, meaning in _SIGNS:
        entry(sign, "warn", meaning)
    if facts:
        text.append("This run\n", palette.style("fg bold"))
    room = max((len(name) for name in facts), default=0) + 2
    for name, told in facts.items():
        entry(name, "muted", told, room)
    text.rstrip()
    return text


class HelpScreen(ModalScreen[None]):
    """Closes with the key that opened it, Escape or q."""

    def __init__(
        self,
        keys: Sequence[Key],
        topics: Sequence[HelpTopic],
        facts: Mapping[str, str],
        closing: str = "question_mark,h",
    ) -> None:
        """``closing``: the keys that opened it, comma-separated."""
        super().__init__()
        self._keys, self._topics, self._facts = tuple(keys), tuple(topics), facts
        self._bindings.bind(f"escape,q,{closing}", "close", show=False)

    def compose(self) -> ComposeResult:
        with VerticalScroll(id="help"):
            yield Static(id="help-text")

    def on_mount(self) -> None:
        box = self.query_one("#help")
        box.border_title, box.border_subtitle = "Help", "Esc closes"
        box.focus()

    def on_resize(self) -> None:
        palette = palette_for(self.app.current_theme)
        # The box takes nine tenths of the screen; its frame, margins and scrollbar are not text.
        width = min(_WIDEST, self.app.size.width * 9 // 10) - 7
        text = help_text(self._keys, self._topics, palette, self._facts, width)
        if getattr(self.app, "ascii_only", False):
            text.plain = glyphs.to_ascii(text.plain)
        self.query_one(Static).update(text)

    def action_close(self) -> None:
        self.dismiss(None)
