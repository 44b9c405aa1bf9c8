"""A line chart as SVG, with what a pointer needs to tell values. Curves in, text out."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
import numpy.typing as npt

from monitor.charts.line_chart import ChartData, mark_glyph, series_role
from monitor.charts.raster import cut, value_at
from monitor.charts.scale import Scale, scale_for, tick_labels
from monitor.envelope import MINUS_INFINITY, NAN, PLUS_INFINITY, Curve
from monitor.formatting import number

WIDTH, HEIGHT = 560, 210
LEFT, RIGHT, TOP, BOTTOM = 58, 34, 10, 34
PLOT = (WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM)
_COLUMNS = 280
"""Columns of the plot that a curve is reduced to; lowest and highest value of each are kept."""
_NAME_HEIGHT = 9
_LANE = HEIGHT - BOTTOM + 20


@dataclass(frozen=True)
class Column:
    """One column of a reduced curve."""

    x: float
    low: float
    high: float


def draw(data: ChartData) -> str:
    """The chart as one ``svg`` element of WIDTH x HEIGHT units."""
    curves = [cut(curve, data.span) for curve in data.curves]
    scale = scale_for(curves, data.log)
    parts = [
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escape(data.title)}" data-span="{data.span[0]} {data.span[1]}" '
        f'data-chart="{_pointer(data)}">'
    ]
    if scale is None:
        text = data.absent or "no finite value"
        parts.append(f'<text x="{LEFT}" y="{HEIGHT / 2}" class="muted">{escape(text)}</text>')
    else:
        parts += _healthy(data, scale)
        parts += _ticks(scale)
        for index, curve in enumerate(curves):
            parts += _curve(curve, series_role(index, len(curves)), data.span, scale)
        if len(curves) > 1:
            parts += _names(curves, data.span, scale)
    parts += _axis(data, curves)
    parts.append("</svg>")
    return "".join(parts)


def x_of(step: float, span: tuple[int, int]) -> float:
    """Place of a step on the horizontal axis."""
    share = (step - span[0]) / max(span[1] - span[0], 1)
    return LEFT + min(max(share, 0.0), 1.0) * PLOT[0]


def _y(share: float) -> float:
    return TOP + (1 - share) * PLOT[1]


def _healthy(data: ChartData, scale: Scale) -> list[str]:
    if data.healthy is None:
        return []
    low, high = (float(scale.position(edge)) for edge in data.healthy)
    if high <= 0 or low >= 1:
        return []
    top, bottom = _y(high), _y(low)
    return [
        f'<rect class="healthy" x="{LEFT}" y="{top:.1f}" width="{PLOT[0]}" '
        f'height="{max(bottom - top, 1):.1f}"><title>healthy</title></rect>'
    ]


def _ticks(scale: Scale) -> list[str]:
    parts = []
    for tick, label in zip(scale.ticks, tick_labels(scale, 8), strict=True):
        y = _y(float(scale.position(tick)))
        parts.append(
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text class="tick" x="{LEFT - 6}" y="{y + 3.5:.1f}" text-anchor="end">'
            f"{label}</text>"
        )
    return parts


def reduced(curve: Curve, span: tuple[int, int]) -> list[list[Column]]:
    """The curve in at most _COLUMNS columns, cut into stretches that a gap ends."""
    stretches: list[list[Column]] = []
    middle = (curve.first + curve.last) / 2
    places = np.round((middle - span[0]) / max(span[1] - span[0], 1) * _COLUMNS)
    finite = np.isfinite(curve.low)
    begin = True
    for place in np.unique(places):
        inside = places == place
        if not (inside & finite).any():
            begin = begin or not curve.sparse
            continue
        column = Column(
            x_of(float(middle[inside].mean()), span),
            float(np.nanmin(curve.low[inside])),
            float(np.nanmax(curve.high[inside])),
        )
        broken = bool(curve.marks[inside].any()) and not curve.sparse
        if begin or broken:
            stretches.append([])
        stretches[-1].append(column)
        begin = broken
    return stretches


def _curve(curve: Curve, role: str, span: tuple[int, int], scale: Scale) -> list[str]:
    parts = []
    for stretch in reduced(curve, span):
        low = [_y(float(scale.position(column.low))) for column in stretch]
        high = [_y(float(scale.position(column.high))) for column in stretch]
        xs = [column.x for column in stretch]
        if any(below - above > 1 for below, above in zip(low, high, strict=True)):
            edge = [*zip(xs, high, strict=True), *zip(xs[::-1], low[::-1], strict=True)]
            parts.append(f'<polygon class="area {role}" points="{_points(edge)}"/>')
        line = [(x, (a + b) / 2) for x, a, b in zip(xs, low, high, strict=True)]
        if len(line) == 1:
            x, y = line[0]
            parts.append(f'<circle class="dot {role}" cx="{x:.1f}" cy="{y:.1f}" r="1.8"/>')
        else:
            parts.append(f'<polyline class="line {role}" points="{_points(line)}"/>')
    return parts


def _names(curves: Sequence[Curve], span: tuple[int, int], scale: Scale) -> list[str]:
    """The curves' names at their ends, pushed apart where the ends are close."""
    ends: list[tuple[float, float, int]] = []
    for index, curve in enumerate(curves):
        finite = np.flatnonzero(np.isfinite(curve.high))
        if len(finite):
            at = finite[-1]
            y = _y(float(scale.position(float(curve.high[at]))))
            ends.append((y, x_of(float(curve.last[at]), span), index))
    parts = []
    above = float(TOP - _NAME_HEIGHT)
    for y, x, index in sorted(ends):
        above = max(y, above + _NAME_HEIGHT)
        if above > HEIGHT - BOTTOM + _NAME_HEIGHT:
            break  # more layers than there is room for: the first of them are named
        parts.append(
            f'<text class="end {series_role(index, len(curves))}" x="{x + 4:.1f}" '
            f'y="{above + 3:.1f}">{escape(curves[index].label)}</text>'
        )
    return parts


def _points(pairs: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in pairs)


def _axis(data: ChartData, curves: Sequence[Curve]) -> list[str]:
    base = HEIGHT - BOTTOM
    parts = [f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{base}" y2="{base}"/>']
    for text, anchor, edge in (
        (f"step {data.span[0]}", "start", LEFT),
        (str(data.span[1]), "end", WIDTH - RIGHT),
    ):
        parts.append(
            f'<text class="tick" x="{edge}" y="{HEIGHT - 6}" text-anchor="{anchor}">{text}</text>'
        )
    parts += _lane(data, curves)
    for mark in data.marks:
        x = x_of(mark.step, data.span)
        parts.append(
            f'<g class="mark {escape(mark.kind)}"><line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" '
            f'y2="{base}"/><text x="{x:.1f}" y="{base + 11}" text-anchor="middle">'
            f"{mark_glyph(mark.kind)}</text><title>{escape(mark.kind)} at step {mark.step}</title>"
            "</g>"
        )
    return parts


def _lane(data: ChartData, curves: Sequence[Curve]) -> list[str]:
    """Signs under the axis where values were not finite."""
    parts = []
    seen: set[tuple[int, str]] = set()
    for bit, sign, name in (
        (NAN, "×", "NaN"),
        (PLUS_INFINITY, "↑", "+infinity"),
        (MINUS_INFINITY, "↓", "−infinity"),
    ):
        for curve in curves:
            if bit == NAN and curve.sparse:
                continue
            for step in curve.last[(curve.marks & bit) > 0]:
                x = x_of(float(step), data.span)
                if (round(x / 6), sign) not in seen:
                    seen.add((round(x / 6), sign))
                    parts.append(
                        f'<text class="lane" x="{x:.1f}" y="{_LANE}" text-anchor="middle">{sign}'
                        f"<title>{name} at step {step}</title></text>"
                    )
    return parts


def _pointer(data: ChartData) -> str:
    """What the script under the pointer tells: steps, and each curve's value there, as JSON."""
    steps = _steps(data)
    series = [
        {
            "name": curve.label,
            "role": series_role(index, len(data.curves)),
            "values": [_told(value_at(curve, int(step))) for step in steps],
        }
        for index, curve in enumerate(data.curves)
    ]
    return escape(json.dumps({"steps": steps.tolist(), "series": series}), quote=True)


def _told(value: float) -> str:
    return "–" if math.isnan(value) else number(value)


def _steps(data: ChartData) -> npt.NDArray[np.int64]:
    longest = max(data.curves, key=len, default=None)
    steps = cut(longest, data.span).last if longest is not None else np.zeros(0, np.int64)
    return steps[:: max(1, math.ceil(len(steps) / _COLUMNS))]
