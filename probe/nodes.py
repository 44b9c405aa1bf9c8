"""Nodes that are another node's likes: a decoder's attention over the encoder's states.

They have the metrics, contracts and faults of the node that they are like, under names of their
own, as in the Fault Propagation Graph.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

CROSS: Mapping[str, str] = MappingProxyType(
    {
        "cross_qkv": "qkv",
        "cross_score": "score",
        "cross_mask": "mask",
        "cross_attention": "attention",
        "residual_cross": "residual_attention",
        "norm_cross": "norm_attention",
    }
)
"""Nodes of cross-attention, and what each is like."""

_OF_CROSS = {like: node for node, like in CROSS.items()}


def kind_of(node: str) -> str:
    """The node whose metrics, contracts and faults ``node`` has: ``mask`` for ``cross_mask``; most
    nodes are of their own kind."""
    return CROSS.get(node, node)


def of_cross(kind: str) -> str:
    """The node of cross-attention that is like ``kind``; ``kind`` itself where there is none."""
    return _OF_CROSS.get(kind, kind)
