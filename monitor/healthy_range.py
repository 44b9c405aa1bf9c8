"""Where the healthy values of a metric lie, for those whose definition says it in numbers."""

from __future__ import annotations

import math
import re

from probe.schema import Metric

Range = tuple[float, float]

_NUMBER = r"[-+]?[0-9.]+(?:e[-+]?[0-9]+)?"
_BETWEEN = re.compile(rf"({_NUMBER}) to ({_NUMBER})")
_BELOW = re.compile(rf"below ({_NUMBER})")


def healthy_range(metric: Metric | None) -> Range | None:
    """Lowest and highest healthy value; None where the definition gives no numbers.

    A contract is healthy within its tolerance of 0, on both sides where it is signed. Another
    metric is where its ``healthy`` text reads "1e-4 to 1e-2" or "below 1"; a bound that the text
    leaves open is infinite.
    """
    if metric is None:
        return None
    if metric.contract:
        return (-metric.tolerance if metric.form == "signed" else 0.0), metric.tolerance
    between = _BETWEEN.fullmatch(metric.healthy)
    if between is not None:
        return float(between[1]), float(between[2])
    below = _BELOW.fullmatch(metric.healthy)
    return (-math.inf, float(below[1])) if below is not None else None
