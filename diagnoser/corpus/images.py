"""Images whose class is the direction of their stripes, under noise."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

CHANNELS = 3
PATCH = 4
DIRECTIONS = 4


def side(tokens: int) -> int:
    """Pixels along an image of about ``tokens`` patches, at least four patches."""
    return PATCH * max(2, round(tokens**0.5))


def striped(tokens: int, rng: np.random.Generator) -> tuple[npt.NDArray[np.float32], int]:
    """An image (CHANNELS, side, side) and its direction, 0 to DIRECTIONS - 1."""
    direction = int(rng.integers(DIRECTIONS))
    angle = np.pi * direction / DIRECTIONS
    places = np.arange(side(tokens))
    along = np.cos(angle) * places[:, None] + np.sin(angle) * places[None, :]
    wave = np.sin(along * rng.uniform(0.8, 1.4) + rng.uniform(0, 2 * np.pi))
    colour = rng.uniform(0.3, 1.0, (CHANNELS, 1, 1))
    noise = rng.normal(0.0, 0.5, (CHANNELS, len(places), len(places)))
    return (colour * wave + noise).astype(np.float32), direction
