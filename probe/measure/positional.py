"""Positions: which index each token gets, and whether q and k are rotated by it."""

from __future__ import annotations

from probe.schema import Metric

METRICS = (
    Metric(
        "sensitivity",
        ("positional",),
        "positive",
        "",
        "mean distance of neighbouring tokens' hidden states over sqrt(width), mean over layers",
        "steady",
        source="DEFault++",
    ),
    Metric(
        "strength",
        ("positional",),
        "share",
        "ratio",
        "norm of what positions add, against the token embedding; for rotary, relative change of q by the rotation",
        "above 0",
    ),
    Metric(
        "missing",
        ("positional",),
        "share",
        "0 or 1",
        "the model owns positions but they add nothing (learned) or do not rotate q and k (rotary)",
        "0",
        contract=True,
    ),
    Metric(
        "index_error",
        ("positional",),
        "share",
        "share",
        "real tokens whose position index is not the one implied by their place",
        "0",
        contract=True,
    ),
    Metric(
        "repeated",
        ("positional",),
        "share",
        "share",
        "real tokens whose index equals their predecessor's",
        "0",
        contract=True,
    ),
    Metric(
        "offset",
        ("positional",),
        "signed",
        "positions",
        "mean difference between the index used and the implied one",
        "0",
        contract=True,
    ),
    Metric(
        "rotation_error",
        ("positional",),
        "residual",
        "relative",
        "kernel's q and k against the projected ones rotated by the implied positions, worst layer",
        "0",
        contract=True,
        tolerance=1e-4,
    ),
)
