"""Curves as characters of a plot, kept while a cursor moves over them or a title changes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from monitor.charts import raster
from monitor.charts.scale import Scale, scale_for
from monitor.envelope import Curve
from monitor.kept import Kept

KEPT = 48
"""Plots kept: more than are on screen and are prepared for the next picture."""


class Plotted(Struct, frozen=True):
    """The curves ``cut`` to the span, their scale (None: no finite value), and, read-only, the
    plot's characters and the curve whose colour each has, shape (height, width)."""

    cut: tuple[Curve, ...]
    scale: Scale | None
    characters: npt.NDArray[np.str_]
    owner: npt.NDArray[np.int64]


_kept: Kept[Plotted] = Kept(KEPT)


def plotted(
    curves: Sequence[Curve],
    span: tuple[int, int],
    log: bool,
    width: int,
    height: int,
    dots: tuple[int, int],
) -> Plotted:
    """The plot of ``width`` by ``height`` cells; the one before where the curves are the same
    objects and nothing else differs either."""
    settings = (span, log, width, height, dots)
    return _kept.of(curves, settings, lambda: _made(curves, *settings))


def _made(
    curves: Sequence[Curve],
    span: tuple[int, int],
    log: bool,
    width: int,
    height: int,
    dots: tuple[int, int],
) -> Plotted:
    cut = tuple(raster.cut(curve, span) for curve in curves)
    scale = scale_for(cut, log)
    if scale is None:
        return Plotted(cut, None, np.full((height, width), " "), np.zeros((height, width), int))
    top, bottom = raster.strokes(cut, span, scale, width * dots[0], height * dots[1])
    characters, owner = raster.cells(top, bottom, height, dots)
    if len(cut) > 1:
        # An empty cell is of the colour before it: a row is a few pieces instead of one a dot.
        before = np.maximum.accumulate(np.where(owner < 0, 0, np.arange(width)), axis=1)
        owner = owner[np.arange(height)[:, None], before]
    return Plotted(cut, scale, characters, np.maximum(owner, 0))
