"""The verdict over time as SVG: a lane of words, and a band for each category."""

from __future__ import annotations

from html import escape

import numpy as np

from monitor.envelope import Curve
from monitor.formatting import percent, spoken
from monitor.verdict_history import WORDS, Bands

WIDTH = 1140
_LEFT, _ROW, _GAP = 190, 22, 4
_SIGNS = {"insufficient": "◌", "healthy": "✓", "faulty": "✗"}
_TOLD = {"insufficient": "not enough evidence yet", "healthy": "healthy", "faulty": "FAULTY"}


def draw(bands: Bands) -> str:
    """One ``svg`` element; a band's shade is its probability, told on hover too."""
    rows = (bands.fault, *bands.categories)
    span = (int(bands.fault.first[0]), int(bands.fault.last[-1]))
    height = (len(rows) + 1) * (_ROW + _GAP) + 18
    parts = [
        f'<svg class="timeline" viewBox="0 0 {WIDTH} {height}" role="img" '
        'aria-label="verdict over time">'
    ]
    parts += _lane(bands.verdict, span)
    for index, curve in enumerate(rows, 1):
        parts += _band(curve, span, index * (_ROW + _GAP))
    for text, anchor, x in (
        (f"step {span[0]}", "start", _LEFT),
        (str(span[1]), "end", WIDTH - 2),
    ):
        parts.append(
            f'<text class="tick" x="{x}" y="{height - 4}" text-anchor="{anchor}">{text}</text>'
        )
    return "".join([*parts, "</svg>"])


def _edges(curve: Curve, span: tuple[int, int]) -> list[float]:
    """Left edge of every bucket, and the right edge of the last."""
    share = (np.append(curve.first, span[1] + 1) - span[0]) / max(span[1] + 1 - span[0], 1)
    return [float(x) for x in _LEFT + share * (WIDTH - 2 - _LEFT)]


def _lane(verdict: Curve, span: tuple[int, int]) -> list[str]:
    edges = _edges(verdict, span)
    numbers = [int(value) if np.isfinite(value) else 0 for value in verdict.high]
    parts = [f'<text class="name" x="{_LEFT - 8}" y="15" text-anchor="end">verdict</text>']
    start = 0
    for at in range(1, len(numbers) + 1):
        if at < len(numbers) and numbers[at] == numbers[start]:
            continue
        word = WORDS[numbers[start]]
        left, width = edges[start], edges[at] - edges[start]
        told = f"{_SIGNS[word]} {_TOLD[word]}"
        shown = told if len(told) * 7 < width else _SIGNS[word] if width > 10 else ""
        first, last = verdict.first[start], verdict.last[at - 1]
        parts.append(
            f'<g class="verdict {word}"><rect x="{left:.1f}" y="0" width="{width:.1f}" '
            f'height="{_ROW}"/><text x="{left + 6:.1f}" y="15">{shown}</text>'
            f"<title>{told}: steps {first} to {last}</title></g>"
        )
        start = at
    return parts


def _band(curve: Curve, span: tuple[int, int], y: int) -> list[str]:
    name = "any fault" if curve.label == "fault" else spoken(curve.label)
    newest = float(curve.latest[-1])
    parts = [
        f'<text class="name" x="{_LEFT - 8}" y="{y + 15}" text-anchor="end">{escape(name)} '
        f"{percent(newest)}</text>"
        f'<rect class="track" x="{_LEFT}" y="{y}" width="{WIDTH - 2 - _LEFT}" height="{_ROW}"/>'
    ]
    edges = _edges(curve, span)
    levels = [round(float(value), 2) if np.isfinite(value) else 0.0 for value in curve.high]
    start = 0
    for at in range(1, len(levels) + 1):
        if at < len(levels) and levels[at] == levels[start]:
            continue
        if levels[start] > 0:
            first, last = curve.first[start], curve.last[at - 1]
            parts.append(
                f'<rect class="band" x="{edges[start]:.1f}" y="{y}" '
                f'width="{edges[at] - edges[start]:.1f}" height="{_ROW}" '
                f'fill-opacity="{levels[start]:.2f}"><title>{escape(name)} '
                f"{percent(levels[start])}: steps {first} to {last}</title></rect>"
            )
        start = at
    return parts
