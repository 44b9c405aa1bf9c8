"""How the representation changes from layer to layer."""

from __future__ import annotations

from probe.schema import Metric

METRICS = (
    Metric(
        "cka",
        ("drift",),
        "share",
        "",
        "linear CKA of this layer's and the previous one's hidden states on sampled tokens, centred",
        "steady",
        source="DEFault++",
    ),
)
