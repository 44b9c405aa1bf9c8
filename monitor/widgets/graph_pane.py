"""The pane of the Fault Propagation Graph."""

from __future__ import annotations

from collections.abc import Sequence

from textual.events import Click
from textual.message import Message

from diagnoser.diagnosis import Diagnosis
from diagnoser.graph import edges
from monitor import glyphs
from monitor.charts.line import Line
from monitor.widgets.graph_drawing import LABEL_WIDTH, GraphDrawing
from monitor.widgets.graph_layout import GraphLayout, lay_out, suspected_path
from monitor.widgets.line_pane import LinePane
from probe.schema import Anatomy

PITCH = 6


class GraphPane(LinePane):
    """The model as a graph, each component with its suspicion, the suspected path marked."""

    BORDER_TITLE = "Fault propagation graph"

    class Clicked(Message):
        """A component was clicked; ``twice``: a double click."""

        def __init__(self, site: str, twice: bool) -> None:
            super().__init__()
            self.site, self.twice = site, twice

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._anatomy: Anatomy | None = None
        self._layout: GraphLayout | None = None
        self._edges: dict[str, tuple[str, ...]] = {}
        self._suspicion: dict[str, float] = {}
        self._path: tuple[str, ...] = ()
        self._shown: tuple[object, ...] = ()
        self._chosen: str | None = None
        self._drawing: GraphDrawing | None = None

    @property
    def layout_of_model(self) -> GraphLayout | None:
        """Rows and layers as drawn; None before the model is known."""
        return self._layout

    @property
    def origin(self) -> str | None:
        """The site where the fault seems to start."""
        return self._path[0] if self._path else None

    def show(
        self, anatomy: Anatomy | None, diagnosis: Diagnosis | None, chosen: str | None = None
    ) -> None:
        """Draw a model and what is suspected in it; ``chosen`` is a site to point out."""
        if anatomy is not self._anatomy:
            self._anatomy = anatomy
            self._layout = lay_out(anatomy) if anatomy else None
            self._edges = _targets(anatomy) if anatomy else {}
        self._suspicion = dict(diagnosis.suspicion) if diagnosis else {}
        faulty = diagnosis is not None and diagnosis.verdict == "faulty"
        now = (id(anatomy), self._suspicion, faulty, self.app.theme, chosen)
        if now == self._shown:
            return
        self._shown, self._chosen = now, chosen
        self._path = suspected_path(self._edges, self._suspicion) if faulty else ()
        self.redraw()

    def wanted_width(self, screen_width: int) -> int:
        """Cells this pane makes use of on a screen of that width."""
        layers = self._layout.layers if self._layout else 0
        frame = 2 + LABEL_WIDTH + 1
        return max(min(30, screen_width * 2 // 5), min(frame + layers * PITCH, screen_width // 3))

    def compose_lines(self, width: int, height: int) -> Sequence[Line]:
        if self._layout is None:
            return ((("waiting for the model", "muted"),),)
        key = self._legend(width)
        spare = height - len(key)
        self._drawing = GraphDrawing(
            self._layout, self._suspicion, self._path, width, spare, self._chosen
        )
        drawing = self._drawing.draw()
        blank: tuple[Line, ...] = tuple(() for _ in range(max(0, spare - len(drawing))))
        return (*drawing, *blank, *key)

    def on_click(self, event: Click) -> None:
        at = event.get_content_offset(self)
        if at is None or self._drawing is None:
            return
        # Of a row's name the site in the layer one stands in.
        _, _, layer = (self._chosen or "").partition("@")
        near = int(layer) if layer.isdecimal() else 0
        site = self._drawing.site_at(at.x, at.y, near)
        if site is not None:
            self.post_message(self.Clicked(site, event.chain == 2))

    def _legend(self, width: int) -> tuple[Line, ...]:
        if self._path:
            texts = (
                f" {glyphs.ORIGIN} origin   1–9 suspicion in tenths",
                f" {glyphs.ORIGIN} origin   1–9 suspicion",
            )
        elif self._suspicion:
            texts = (
                f" {glyphs.BEAD} no suspicion   1–9 suspicion in tenths",
                f" {glyphs.BEAD} none   1–9 suspicion",
            )
        else:
            return ()
        text = next((text for text in texts if len(text) <= width), texts[-1])
        return (((text, "muted"),),)


def _targets(anatomy: Anatomy) -> dict[str, tuple[str, ...]]:
    found: dict[str, list[str]] = {}
    for edge in edges(anatomy):
        found.setdefault(edge.source, []).append(edge.target)
    return {source: tuple(targets) for source, targets in found.items()}
