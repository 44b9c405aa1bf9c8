"""Curves as characters of a plot, kept while a cursor moves over them or a title changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from monitor.charts import raster
from monitor.charts.scale import Scale, scale_for
from monitor.envelope import Curve

KEPT = 24
"""Plots kept: more than are on screen."""


@dataclass(frozen=True)
class Plotted:
    """The curves ``cut`` to the span, their scale (None: no finite value), and, read-only, the
    plot's characters and the curve each is of, shape (height, width)."""

    curves: tuple[Curve, ...]
    cut: tuple[Curve, ...]
    scale: Scale | None
    characters: npt.NDArray[np.str_]
    owner: npt.NDArray[np.int64]


_kept: dict[tuple[object, ...], Plotted] = {}


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
    asked = (tuple(map(id, curves)), span, log, width, height, dots)
    found = _kept.pop(asked, None)
    if found is None:
        found = _made(tuple(curves), span, log, width, height, dots)
        while len(_kept) >= KEPT:
            del _kept[next(iter(_kept))]
    _kept[asked] = found  # it holds the curves: no others get their ids
    return found


def _made(
    curves: tuple[Curve, ...],
    span: tuple[int, int],
    log: bool,
    width: int,
    height: int,
    dots: tuple[int, int],
) -> Plotted:
    cut = tuple(raster.cut(curve, span) for curve in curves)
    scale = scale_for(cut, log)
    if scale is None:
        empty = np.full((height, width), " "), np.full((height, width), -1)
        return Plotted(curves, cut, None, *empty)
    layers = raster.curves_dots(cut, span, scale, width * dots[0], height * dots[1])
    return Plotted(curves, cut, scale, *raster.cells(layers, width, height, dots))
