"""Expected calibration error, for ``p.validation(calibration_error=...)``."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def calibration_error(predictions: Any, labels: Any, bins: int = 10) -> float:
    """How far confidence is from accuracy: 0 where 80 % sure means right in 80 % of the cases.

    ``predictions``: (..., classes), probabilities or logits; rows that are not shares of 1 are
    taken for logits. ``labels``: (...), class numbers; negative ones (padding, -100) do not count.
    Tensors on any device, arrays or lists. With ``bins`` intervals of equal width by the largest
    probability: sum over intervals of share of items x |accuracy - mean confidence| (Guo et al.
    2017). NaN where no label counts. Raises ValueError where shapes do not fit, or a label is no
    class. Waits for the device: for validations, not for training steps.
    """
    if bins < 1:
        raise ValueError(f"bins must be at least 1, not {bins}")
    scores, classes = _array(predictions), _array(labels)
    if scores.ndim < 2 or scores.shape[:-1] != classes.shape:
        raise ValueError(
            f"predictions of shape {scores.shape} do not fit labels of shape {classes.shape}: "
            "give (items, classes) and (items,)"
        )
    scores, classes = scores.reshape(-1, scores.shape[-1]), classes.reshape(-1).astype(np.int64)
    scores, classes = scores[classes >= 0], classes[classes >= 0]
    if not len(classes):
        return float("nan")
    if classes.max() >= scores.shape[1]:
        raise ValueError(f"label {classes.max()} is none of the {scores.shape[1]} classes")
    shares = _shares(scores)
    confidence = shares.max(axis=1)
    right = shares.argmax(axis=1) == classes
    # The interval (i / bins, (i + 1) / bins].
    place = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    gaps = np.bincount(place, right - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(classes))


def _array(values: Any) -> npt.NDArray[np.float64]:
    if hasattr(values, "detach"):
        values = values.detach().double().cpu().numpy()
    return np.asarray(values, np.float64)


def _shares(scores: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Probabilities as they are; softmax of anything else."""
    if (scores >= 0).all() and (np.abs(scores.sum(axis=1) - 1.0) < 1e-2).all():
        return scores
    grown = np.exp(scores - scores.max(axis=1, keepdims=True))
    return grown / grown.sum(axis=1, keepdims=True)
