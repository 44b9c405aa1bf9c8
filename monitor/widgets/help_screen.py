"""The help: keys from the key table, the signs, the chosen metric's definition."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Static

from monitor import glyphs
from monitor.keys import Key
from monitor.metric_groups import MetricGroup
from monitor.palette import Palette, palette_for
from probe.schema import Metric

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
_FORMS = {
    "residual": "a relative error, read on a log scale",
    "share": "within 0 and 1",
    "signed": "0 in the middle",
    "positive": "above 0",
    "statistic": "any number",
}


def metric_lines(group: MetricGroup, absent: str) -> list[tuple[str, str]]:
    """What to know of a metric: (name, text) pairs."""
    metric: Metric | None = group.metric
    if metric is None:
        return [("meaning", "a value that the training logs itself")]
    kind = _FORMS[metric.form]
    if metric.contract:
        kind += "; a contract, whose healthy value is known exactly"
    lines = [
        ("meaning", metric.meaning),
        ("unit", metric.unit or "none"),
        ("healthy", metric.healthy),
        ("kind", kind),
    ]
    if metric.per_head:
        lines.append(("heads", "told of each head too: filter with @, e.g. @2 for layer 2"))
    if metric.source:
        lines.append(("source", metric.source))
    if absent:
        lines.append(("not here", absent))
    return lines


def help_text(
    keys: Sequence[Key],
    group: MetricGroup | None,
    absent: str,
    palette: Palette,
    facts: Mapping[str, str],
) -> Text:
    """The whole help as one text; ``facts``: what is told of the run, by name."""
    text = Text()
    if group is not None:
        text.append(f"{group.key}\n", palette.style("accent bold"))
        for name, sentence in metric_lines(group, absent):
            text.append(f"  {name:<9}", palette.style("muted"))
            text.append(f"{sentence}\n", palette.style("fg"))
        text.append("\n")
    for heading in dict.fromkeys(key.group for key in keys):
        text.append(f"{heading}\n", palette.style("fg bold"))
        for key in (key for key in keys if key.group == heading):
            text.append(f"  {key.shown:<9}", palette.style("accent"))
            text.append(f"{key.help}\n", palette.style("fg"))
        if heading == "Monitor":
            text.append(f"  {'ctrl+p':<9}", palette.style("accent"))
            text.append("command palette: every command, and the themes\n", palette.style("fg"))
    text.append("Signs\n", palette.style("fg bold"))
    for sign, meaning in _SIGNS:
        text.append(f"  {sign:<9}", palette.style("warn"))
        text.append(f"{meaning}\n", palette.style("fg"))
    if facts:
        text.append("This run\n", palette.style("fg bold"))
    width = max((len(name) for name in facts), default=0) + 2
    for name, told in facts.items():
        text.append(f"  {name:<{width}}", palette.style("muted"))
        text.append(f"{told}\n", palette.style("fg"))
    text.rstrip()
    return text


class HelpScreen(ModalScreen[None]):
    """Closes with the key that opened it, Escape or q."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,question_mark,h,q", "close", show=False)
    ]

    def __init__(
        self,
        keys: Sequence[Key],
        group: MetricGroup | None,
        absent: str,
        facts: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__()
        self._keys, self._group, self._absent = tuple(keys), group, absent
        self._facts = facts or {}

    def compose(self) -> ComposeResult:
        with VerticalScroll(id="help"):
            yield Static(id="help-text")

    def on_mount(self) -> None:
        box = self.query_one("#help")
        box.border_title, box.border_subtitle = "Help", "Esc closes"
        palette = palette_for(self.app.current_theme)
        text = help_text(self._keys, self._group, self._absent, palette, self._facts)
        if getattr(self.app, "ascii_only", False):
            text.plain = glyphs.to_ascii(text.plain)
        self.query_one(Static).update(text)
        box.focus()

    def action_close(self) -> None:
        self.dismiss(None)
