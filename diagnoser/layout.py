"""What the columns of a feature table mean, so that a table outlives the code that wrote it.

A probe that learns a new metric does not make older runs worthless: to them it is a metric that was
not measured, and a rule that is new was not met. What both sides know must mean the same, or the
table has to be made again.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from diagnoser import schema
from diagnoser.rules import RULES

if TYPE_CHECKING:
    import numpy.typing as npt


class Layout(msgspec.Struct, frozen=True):
    """``revision``: of how features are computed. ``features``: their names, by node kind.
    ``metrics``: the definitions behind them. ``rules``: in their order."""

    revision: str
    features: dict[str, tuple[str, ...]]
    metrics: dict[str, tuple[str, ...]]
    rules: tuple[str, ...]

    @property
    def digest(self) -> str:
        """Short checksum."""
        data = msgspec.json.encode(self, order="sorted")
        return hashlib.sha256(data).hexdigest()[:16]


def current() -> Layout:
    """Of this code."""
    return Layout(
        revision=schema.REVISION,
        features=schema.all_feature_names(),
        metrics={kind: schema.definitions(kind) for kind in schema.node_kinds()},
        rules=tuple(map(repr, RULES)),
    )


def clash(theirs: Layout, ours: Layout) -> str:
    """What means something else on the two sides, in words; empty where nothing does."""
    if theirs.revision != ours.revision:
        return f"its features are computed as in revision {theirs.revision}, not {ours.revision}"
    for kind, known in ours.metrics.items():
        there = {text.partition("/")[0]: text for text in theirs.metrics.get(kind, ())}
        for text in known:
            name = text.partition("/")[0]
            if there.get(name, text) != text:
                return f"{kind}/{name} is {there[name]} there and {text} here"
    return ""


@dataclass(frozen=True)
class Reading:
    """Brings rows of a table into this code's order; what they lack is 0, absent."""

    features: dict[str, npt.NDArray[np.int64]]
    rules: npt.NDArray[np.int64]

    @classmethod
    def of(cls, theirs: Layout, ours: Layout) -> Reading:
        """For two layouts that do not clash."""
        return cls(
            {
                kind: _places(theirs.features.get(kind, ()), names)
                for kind, names in ours.features.items()
            },
            _places(theirs.rules, ours.rules),
        )

    def nodes(self, kind: str, values: npt.NDArray[np.float16]) -> npt.NDArray[np.float16]:
        """(rows, their features) of a node kind -> (rows, our features)."""
        return _taken(values, self.features[kind])

    def fired(self, values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """(moments, their rules) -> (moments, our rules)."""
        return _taken(values, self.rules)


def _places(there: tuple[str, ...], here: tuple[str, ...]) -> npt.NDArray[np.int64]:
    """Where each name of ours stands among theirs, -1 where it does not."""
    place = {name: number for number, name in enumerate(there)}
    return np.array([place.get(name, -1) for name in here], dtype=np.int64)


def _taken(values: npt.NDArray, places: npt.NDArray[np.int64]) -> npt.NDArray:
    if values.shape[1] == len(places) and (places == np.arange(len(places))).all():
        return values
    result = np.zeros((len(values), len(places)), dtype=values.dtype)
    known = places >= 0
    result[:, known] = values[:, places[known]]
    return result
