"""A curve of values that were measured at every step."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from monitor.envelope import Curve, Envelope


def curve(values: npt.ArrayLike, label: str = "", first: int = 0) -> Curve:
    envelope = Envelope(1, 512)
    column = np.asarray(values, np.float32).reshape(-1, 1)
    envelope.extend(np.arange(first, first + len(column)), column)
    return envelope.curve(0, label)
