"""The mask as applied, against the one implied by attention_mask, causality and packing."""

from __future__ import annotations

from probe.schema import Metric

METRICS = (
    Metric(
        "padding_mass",
        ("mask",),
        "share",
        "share",
        "attention mass of real tokens on padding",
        "0",
        source="DEFault++",
        contract=True,
        tolerance=1e-5,
    ),
    Metric(
        "future_mass",
        ("mask",),
        "share",
        "share",
        "attention mass on later positions, in a causal model",
        "0",
        source="DEFault++",
        contract=True,
        tolerance=1e-5,
    ),
    Metric(
        "cross_mass",
        ("mask",),
        "share",
        "share",
        "attention mass on another packed document",
        "0",
        source="DEFault++",
        contract=True,
        tolerance=1e-5,
    ),
    Metric(
        "leaked",
        ("mask",),
        "share",
        "share",
        "pairs that the implied mask hides and the applied one shows",
        "0",
        contract=True,
        tolerance=1e-5,
    ),
    Metric(
        "hidden",
        ("mask",),
        "share",
        "share",
        "pairs that the implied mask shows and the applied one hides",
        "0",
        contract=True,
        tolerance=1e-5,
    ),
    Metric(
        "causal_unasked",
        ("mask",),
        "share",
        "0 or 1",
        "later positions are hidden although the architecture is bidirectional",
        "0",
        contract=True,
    ),
)
