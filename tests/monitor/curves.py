"""A curve of values measured at even distances."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from monitor.envelope import Curve, Envelope


def curve(
    values: npt.ArrayLike, label: str = "", first: int = 0, every: int = 1, capacity: int = 512
) -> Curve:
    """The curve of ``values``, shape (steps,), as an envelope of ``capacity`` buckets keeps it."""
    envelope = Envelope(1, capacity)
    column = np.asarray(values, np.float32).reshape(-1, 1)
    envelope.extend(first + every * np.arange(len(column)), column)
    return envelope.curve(0, label)
