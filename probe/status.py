"""What the probe tells about itself between records."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

State = Literal["waiting", "training", "paused", "closed", "off"]


@dataclass(frozen=True)
class Status:
    """The state of the training, as the measuring side of the probe knows it."""

    state: State = "waiting"
    step: int = 0
    overhead: float = math.nan
    """Probe time over training time so far; NaN before it is known."""
    dropped: int = 0
    """Records the measuring side itself had to leave out."""
