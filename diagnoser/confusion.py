"""The picture of what is taken for what: true category by category answered, with healthy."""

from __future__ import annotations

from collections import Counter
from html import escape
from typing import TYPE_CHECKING

from diagnoser.taxonomy import CATEGORY_NAMES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from diagnoser.replay import Prediction

HEALTHY = "healthy"
CLASSES: tuple[str, ...] = (*CATEGORY_NAMES, HEALTHY)

CELL = 44
LEFT, TOP = 150, 130
MARGIN = 12
RIGHT = 44

STYLE = """
text { font: 13px system-ui, "Segoe UI", "DejaVu Sans", sans-serif; fill: #1f2328; }
.title { font-size: 15px; font-weight: 600; }
.small { font-size: 11.5px; fill: #59636e; }
.page { fill: #ffffff; }
.empty { fill: #f3f5f7; }
.right { fill: #1a7f4b; }
.wrong { fill: #c2410c; }
.count { text-anchor: middle; }
.strong { fill: #ffffff; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3; }
  .small { fill: #9aa4af; }
  .page { fill: #0d1117; }
  .empty { fill: #1a2029; }
  .right { fill: #2ea568; }
  .wrong { fill: #f0763b; }
  .strong { fill: #0d1117; }
}
"""


def counts(predictions: Sequence[Prediction]) -> Counter[tuple[str, str]]:
    """How often a true class was given an answer, by (truth, answer), both of :data:`CLASSES`."""
    return Counter(
        (
            p.truth.split("/")[0] if p.truth else HEALTHY,
            (p.category or HEALTHY) if p.faulty else HEALTHY,
        )
        for p in predictions
    )


def picture(found: Mapping[tuple[str, str], int], title: str) -> str:
    """An SVG: a row per true class, a column per answer, shaded by the share of the row."""
    size = CELL * len(CLASSES)
    width, height = LEFT + size + RIGHT, TOP + size + MARGIN
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" role="img" aria-label="{escape(title)}">',
        f"<style>{STYLE}</style>",
        f'<rect class="page" width="{width}" height="{height}" rx="6"/>',
        f'<text class="title" x="{MARGIN}" y="26">{escape(title)}</text>',
        f'<text class="small" x="{MARGIN}" y="44">rows: what was injected; columns: the answer; '
        "shade: share of the row</text>",
    ]
    for number, name in enumerate(CLASSES):
        middle = CELL * number + CELL // 2
        across, down = LEFT + middle, TOP + middle
        runs = sum(found.get((name, other), 0) for other in CLASSES)
        lines.append(
            f'<text transform="translate({across + 4} {TOP - 8}) rotate(-45)">{name}</text>'
        )
        lines.append(
            f'<text x="{LEFT - 10}" y="{down + 4}" text-anchor="end">{name} '
            f'<tspan class="small">{runs}</tspan></text>'
        )
        lines += [
            _cell(column, number, found.get((name, other), 0), runs)
            for column, other in enumerate(CLASSES)
        ]
    return "\n".join([*lines, "</svg>", ""])


def _cell(column: int, row: int, count: int, runs: int) -> str:
    x, y = LEFT + CELL * column, TOP + CELL * row
    box = f'x="{x + 1}" y="{y + 1}" width="{CELL - 2}" height="{CELL - 2}" rx="3"'
    drawn = f'<rect class="empty" {box}/>'
    if not count:
        return drawn
    share = count / runs
    kind = "right" if row == column else "wrong"
    # A single wrong answer among many must still be seen.
    opacity = 0.18 + 0.82 * share
    strong = " strong" if opacity > 0.55 else ""
    return (
        f'{drawn}<rect class="{kind}" {box} fill-opacity="{opacity:.2f}"/>'
        f'<text class="count{strong}" x="{x + CELL // 2}" y="{y + CELL // 2 + 5}">{count}</text>'
    )
