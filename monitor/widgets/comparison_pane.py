"""Runs and ranks side by side in numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from monitor.charts.line import Line, Piece, fitted
from monitor.charts.raster import value_at
from monitor.comparison import WATCHED, Comparison
from monitor.diagnosing import DiagnosisState
from monitor.formatting import clipped, number
from monitor.run_model import RunModel
from monitor.short_verdict import short_verdict
from monitor.widgets.line_pane import LinePane
from monitor.widgets.pane_title import set_title

_LOSS = "training/loss"
_WIDE = 100
"""Columns from which on there is room for the pace, and longer names."""
_VERDICT = 24
"""Columns that the verdicts take at least."""


@dataclass(frozen=True)
class Compared:
    """One line. ``apart``: the loss less the baseline's at the last step both have; NaN where
    there is none to compare with."""

    sign: str
    name: str
    step: int | None
    loss: float
    apart: float = float("nan")
    pace: float = float("nan")
    verdict: Piece = ("", "muted")
    baseline: bool = False


def rows_of(
    model: RunModel, name: str, comparison: Comparison, diagnosis: DiagnosisState
) -> tuple[Compared, ...]:
    """The watched run, its ranks where it has several, and the runs compared with it;
    ``diagnosis`` is the watched one's."""
    base = comparison.base
    rows = [
        Compared(
            WATCHED,
            name,
            model.step,
            _loss(model),
            _apart(model, base.model) if base else math.nan,
            model.steps_per_second,
            short_verdict(diagnosis, model),
        )
    ]
    if len(model.ranks) > 1:
        rows += [
            Compared(f"r{rank}", f"rank {rank}", _last_step(model, rank), _loss(model, rank))
            for rank in model.ranks
        ]
    for other in comparison.runs:
        is_base = other is base
        rows.append(
            Compared(
                other.letter,
                other.name,
                other.model.step,
                _loss(other.model),
                math.nan if is_base or base is None else _apart(other.model, base.model),
                other.model.steps_per_second,
                short_verdict(other.diagnosis, other.model),
                is_base,
            )
        )
    return tuple(rows)


def _loss(model: RunModel, rank: int | None = None) -> float:
    curves = model.curves(_LOSS, rank=model.home if rank is None else rank)
    return float(curves[0].latest[-1]) if curves and len(curves[0]) else math.nan


def _last_step(model: RunModel, rank: int) -> int | None:
    curves = model.curves(_LOSS, rank=rank)
    return int(curves[0].last[-1]) if curves and len(curves[0]) else None


def _apart(model: RunModel, base: RunModel) -> float:
    own, other = (m.curves(_LOSS, rank=m.home) for m in (model, base))
    if not (own and other and len(own[0]) and len(other[0])):
        return math.nan
    step = int(min(own[0].last[-1], other[0].last[-1]))
    return value_at(own[0], step) - value_at(other[0], step)


def table(rows: Sequence[Compared], width: int) -> tuple[Line, ...]:
    """A heading and a line for each row; the verdicts take what room there is."""
    wide = width >= _WIDE
    name = 26 if wide else 13
    at, value = (9, 11) if wide else (7, 9)
    numbers = at + (3 if wide else 2) * value
    longest = max((len(row.verdict[0]) for row in rows), default=0)
    verdict = max(0, min(max(longest, _VERDICT) + 2, width - 3 - name - numbers))
    head = f"   {'run':<{name}}{'verdict':<{verdict}}{'step':>{at}}{'loss':>{value}}"
    head += f"{'apart':>{value}}" + (f"{'steps/s':>{value}}" if wide else "")
    lines: list[Line] = [fitted([(head, "muted")], width)]
    for row in rows:
        told, role = row.verdict
        step = "–" if row.step is None else str(row.step)
        loss = "–" if math.isnan(row.loss) else number(row.loss, 4)
        apart = "" if math.isnan(row.apart) else ("+" if row.apart > 0 else "") + number(row.apart)
        pace = "" if math.isnan(row.pace) else number(row.pace)
        lines.append(
            fitted(
                [
                    (f"{row.sign:<3}", "accent bold"),
                    (f"{clipped(row.name, name - 1):<{name}}", "fg"),
                    (f"{clipped(told, verdict - 1):<{verdict}}", role),
                    (f"{step:>{at}}{loss:>{value}}", "fg"),
                    (
                        f"{'baseline' if row.baseline else apart:>{value}}",
                        "warn" if apart else "muted",
                    ),
                    (f"{pace:>{value}}" if wide else "", "muted"),
                ],
                width,
            )
        )
    return tuple(lines)


class ComparisonPane(LinePane):
    """There while runs are compared, or where a run has several ranks."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._rows: tuple[Compared, ...] = ()

    def show(self, rows: Sequence[Compared]) -> None:
        """Draw these; one row alone compares with nothing and hides the pane."""
        self._rows = tuple(rows)
        set_title(self, "Side by side · apart: loss less the baseline's at the same step")
        self.set_class(len(self._rows) < 2, "-needless")
        if len(self._rows) > 1:
            self.styles.height = len(self._rows) + 2
        self.redraw()

    def compose_lines(self, width: int, height: int) -> Sequence[Line]:
        return table(self._rows, width)
