"""The Fault Propagation Graph drawn as the transformer itself, in lines of text.

Every layer is a wire with a bead per component; the bottom of a layer leads to the top of the
next. A bead is a dot, or under suspicion a digit (tenths), the origin with an arrow before it.
"""

from __future__ import annotations

from collections.abc import Sequence

from monitor import glyphs
from monitor.charts.line import Line, fitted, from_cells
from monitor.widgets.graph_layout import GraphLayout, GraphRow, GraphStack

LABEL_WIDTH = 11
_WIRES_FROM = 4
"""Cells a layer needs for a wire back up to the next layer's top."""
QUIET = 0.1
"""Suspicion below this is shown as a dot."""

_Cell = tuple[str, str]


class _Canvas:
    """Characters and roles by place; later writes win."""

    def __init__(self, width: int) -> None:
        self.width = width
        self.rows: list[dict[int, _Cell]] = []

    def row(self) -> dict[int, _Cell]:
        self.rows.append({})
        return self.rows[-1]

    def lines(self) -> list[Line]:
        lines = []
        for row in self.rows:
            characters, roles = [" "] * self.width, ["fg"] * self.width
            for at, (character, role) in row.items():
                if 0 <= at < self.width:
                    characters[at], roles[at] = character, role
            lines.append(from_cells(characters, roles))
        return lines


def write(row: dict[int, _Cell], at: int, text: str, role: str) -> None:
    """Put a text into a row of the canvas, a cell per character."""
    for offset, character in enumerate(text):
        row[at + offset] = (character, role)


def bead(value: float | None, known: bool) -> _Cell:
    """Sign and colour of a site's suspicion."""
    if value is None or value < QUIET:
        return glyphs.BEAD, "muted" if known else "faint"
    digit = str(min(9, int(value * 10)))
    if value < 0.3:
        return digit, "fg"
    return digit, "warn bold" if value < 0.6 else "bad bold"


class GraphDrawing:
    """Draws a layout into a given size, with suspicion by site and the path from the origin."""

    def __init__(
        self,
        layout: GraphLayout,
        suspicion: dict[str, float],
        path: Sequence[str],
        width: int,
        height: int,
        chosen: str | None = None,
    ) -> None:
        self._chosen = chosen
        self._chosen_row = 0
        self._layout = layout
        self._suspicion = suspicion
        self._path = frozenset(path)
        self._origin = path[0] if path else None
        self._width, self._height = width, height
        self._known = bool(suspicion)
        room = max(1, width - LABEL_WIDTH - 1)
        layers = max(1, layout.layers)
        self._bins = layers if layers <= room else room
        self._pitch = min(7, max(1, room // self._bins))
        self._binned_rows: dict[int, dict[int, list[str]]] = {}
        self._crossing: dict[int, frozenset[int]] = {}
        self._kinds: dict[int, tuple[GraphRow, GraphStack | None]] = {}
        """What each row of the canvas shows, and the stack whose layers are its columns."""
        self._first = 0

    def draw(self) -> tuple[Line, ...]:
        """At most ``height`` lines of ``width`` cells; the chosen site is among them."""
        for spacing, gap in ((2, True), (1, True), (1, False), (0, False)):
            canvas = self._canvas(spacing, gap)
            if len(canvas.rows) <= self._height:
                break
        first = max(0, min(self._chosen_row - self._height // 2, len(canvas.rows) - self._height))
        self._first = first
        lines = canvas.lines()[first : first + self._height]
        return tuple(fitted(line, self._width) for line in lines)

    def site_at(self, column: int, line: int, layer: int = 0) -> str | None:
        """The site drawn at a cell; at a row's name its site nearest to ``layer``.

        Where several layers share a column, the first of those most suspected. None where nothing
        stands.
        """
        kind, stack = self._kinds.get(self._first + line, (None, None))
        if kind is None:
            return None
        if stack is None or column <= LABEL_WIDTH:
            return kind.site_near(layer)
        at = (column - self._x(0) + self._pitch // 2) // self._pitch
        sites = self._binned(kind, stack).get(at)
        return max(sites, key=lambda site: self._suspicion.get(site, 0.0)) if sites else None

    def _canvas(self, spacing: int, gap: bool) -> _Canvas:
        """``spacing`` 2: a wire between all rows; 1: between parts; 0: none.

        ``gap``: an empty line before what stands apart.
        """
        canvas = _Canvas(self._width)
        self._kinds = {}
        for index, stack in enumerate(self._layout.stacks):
            if index and gap:
                canvas.row()
            self._stack(canvas, stack, spacing)
        if self._layout.contexts:
            if gap:
                canvas.row()
            self._contexts(canvas)
        return canvas

    def _x(self, column: int) -> int:
        return LABEL_WIDTH + 1 + column * self._pitch

    def _column(self, index: int, count: int) -> int:
        return index * self._bins // max(count, self._bins)

    def _stack(self, canvas: _Canvas, stack: GraphStack, spacing: int) -> None:
        count = len(stack.layers)
        columns = min(count, self._bins)
        row = canvas.row()
        write(row, 1, stack.name or "layer", "muted")
        for index, layer in enumerate(stack.layers):
            at = self._x(self._column(index, count))
            text = str(layer)
            if at not in row and at - 1 not in row and at + len(text) <= self._width:
                write(row, at, text, "muted")
        for before in stack.before:
            self._single(canvas, before, self._x(0))
        if spacing:
            self._turns(canvas.row(), stack, columns, top=True)
        for position, kind in enumerate(stack.block):
            row = canvas.row()
            self._block_row(row, kind, stack, columns)
            self._note(canvas, kind, stack)
            if spacing == 2 and position < len(stack.block) - 1:
                self._connector(canvas.row(), kind, stack.block[position + 1], stack, columns)
        if spacing:
            self._turns(canvas.row(), stack, columns, top=False)
        for after in stack.after:
            self._single(canvas, after, self._x(max(columns - 1, 0)))

    def _label(self, row: dict[int, _Cell], kind: GraphRow) -> None:
        worst = max((self._suspicion.get(site, 0.0) for site in kind.sites.values()), default=0.0)
        origin = self._origin in kind.sites.values() and self._origin is not None
        role = "bad bold" if origin else "fg" if worst >= QUIET or not self._known else "muted"
        if self._chosen in kind.sites.values():
            row[0] = (glyphs.SELECTED, "accent bold")
            role = "accent bold"
        write(row, 1, kind.label, role)

    def _note(self, canvas: _Canvas, kind: GraphRow, stack: GraphStack | None = None) -> None:
        self._kinds[len(canvas.rows) - 1] = (kind, stack)
        if self._chosen in kind.sites.values():
            self._chosen_row = len(canvas.rows) - 1

    def _single(self, canvas: _Canvas, kind: GraphRow, at: int) -> None:
        row = canvas.row()
        self._note(canvas, kind)
        self._label(row, kind)
        self._bead(row, at, list(kind.sites.values()))

    def _bead(self, row: dict[int, _Cell], at: int, sites: list[str]) -> None:
        value = max((self._suspicion[s] for s in sites if s in self._suspicion), default=None)
        row[at] = bead(value, self._known)
        if self._origin in sites and self._pitch > 1:
            row[at - 1] = (glyphs.ORIGIN, "bad bold")
        if self._chosen in sites:
            text, role = row[at]
            row[at] = (text, f"{role} reverse")
            if self._pitch > 2:
                for place, sign in ((at - 1, "["), (at + 1, "]")):
                    if place not in row:
                        row[place] = (sign, "accent bold")

    def _binned(self, kind: GraphRow, stack: GraphStack) -> dict[int, list[str]]:
        """Sites of a row by column; several share one where the layers are many."""
        if id(kind) in self._binned_rows:
            return self._binned_rows[id(kind)]
        found = self._binned_rows[id(kind)] = {}
        for index, layer in enumerate(stack.layers):
            if layer in kind.sites:
                column = self._column(index, len(stack.layers))
                found.setdefault(column, []).append(kind.sites[layer])
        return found

    def _block_row(
        self, row: dict[int, _Cell], kind: GraphRow, stack: GraphStack, columns: int
    ) -> None:
        self._label(row, kind)
        sites = self._binned(kind, stack)
        for column in range(columns):
            self._return_wire(row, stack, column, columns)
            if column in sites:
                self._bead(row, self._x(column), sites[column])
            else:
                row[self._x(column)] = (glyphs.VERTICAL, "faint")

    def _connector(
        self,
        row: dict[int, _Cell],
        above: GraphRow,
        below: GraphRow,
        stack: GraphStack,
        columns: int,
    ) -> None:
        uppers, lowers = self._binned(above, stack), self._binned(below, stack)
        for column in range(columns):
            strong = self._on_path(uppers.get(column)) and self._on_path(lowers.get(column))
            if self._pitch == 1 and not strong:
                continue  # wires side by side would be a wall
            row[self._x(column)] = (
                (glyphs.STRONG_VERTICAL, "warn") if strong else (glyphs.VERTICAL, "faint")
            )
            self._return_wire(row, stack, column, columns)

    def _on_path(self, sites: list[str] | None) -> bool:
        return any(site in self._path for site in sites or ())

    def _crosses(self, stack: GraphStack, column: int) -> bool:
        """The suspected path goes from this column's end into the next one's beginning."""
        if id(stack) not in self._crossing:
            columns = range(self._bins if stack.block and self._path else 0)
            crossed = frozenset(at for at in columns if self._leads_on(stack, at))
            self._crossing[id(stack)] = crossed
        return column in self._crossing[id(stack)]

    def _leads_on(self, stack: GraphStack, column: int) -> bool:
        last = self._binned(stack.block[-1], stack).get(column)
        heads = [self._binned(kind, stack).get(column + 1) for kind in stack.block[:3]]
        heads += [
            self._binned(kind, stack).get(column + 1)
            for kind in stack.block
            if kind.node.startswith("residual")
        ]
        return self._on_path(last) and any(self._on_path(head) for head in heads)

    def _return_wire(
        self, row: dict[int, _Cell], stack: GraphStack, column: int, columns: int
    ) -> None:
        if self._pitch >= _WIRES_FROM and column < columns - 1:
            strong = self._crosses(stack, column)
            row[self._x(column) + self._pitch // 2] = (
                (glyphs.STRONG_VERTICAL, "warn") if strong else (glyphs.VERTICAL, "faint")
            )

    def _turns(self, row: dict[int, _Cell], stack: GraphStack, columns: int, top: bool) -> None:
        """Where a layer's wire turns up to the next layer, at the top or the bottom."""
        half = self._pitch // 2
        for column in range(columns):
            at = self._x(column)
            wired = self._pitch >= _WIRES_FROM
            if wired or column == (0 if top else columns - 1):
                row.setdefault(at, (glyphs.VERTICAL, "faint"))
            if not wired or column == columns - 1:
                continue
            strong = self._crosses(stack, column)
            corners = glyphs.STRONG_CORNERS if strong else glyphs.CORNERS
            line = glyphs.STRONG_HORIZONTAL if strong else glyphs.HORIZONTAL
            role = "warn" if strong else "faint"
            begin, end = (at + half, at + self._pitch) if top else (at, at + half)
            left, right = (corners[0], corners[1]) if top else (corners[2], corners[3])
            write(row, begin, left + line * (end - begin - 1) + right, role)

    def _contexts(self, canvas: _Canvas) -> None:
        for kind in self._layout.contexts:
            row = canvas.row()
            stack = self._layout.stacks[-1]
            self._note(canvas, kind, stack if kind.layered else None)
            self._label(row, kind)
            if kind.layered:
                for column, sites in self._binned(kind, stack).items():
                    self._bead(row, self._x(column), sites)
            else:
                self._bead(row, self._x(0), list(kind.sites.values()))
