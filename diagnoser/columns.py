"""A header's columns as arrays: which site, metric, tolerance, how to transform a raw value."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np

from diagnoser import graph, schema
from probe.heads import is_head
from probe.nodes import kind_of

if TYPE_CHECKING:
    import numpy.typing as npt

    from probe.schema import Frame, Header, Metric

    Floats = npt.NDArray[np.float32]

FORMS: tuple[str, ...] = ("residual", "share", "signed", "positive", "statistic")

CHANGE_FLOOR = {"residual": 0.5, "share": 0.02, "signed": 0.03, "positive": 0.05, "statistic": 0.05}
"""Smallest change, in transformed units, that counts as one standard unit, by form."""

CARRIED_KINDS = frozenset({"kv_cache", "validation"})
"""Node kinds measured on rare frames only: their last value stands until the next, as does that of
metrics that say so themselves."""

DTYPE_FLOOR = {"float16": 2e-3, "bfloat16": 2e-2}
"""Smallest tolerance of a residual under a 16-bit dtype (about five roundings)."""

EXACT_BELOW = 1e-5
"""Signed contracts with a tolerance below this compare settings, not arithmetic: no rounding."""


PLAIN_PRODUCTS = ("linear_error", "head_error")
"""Contracts that check a plain matrix product: what they show everywhere is the run's rounding."""

ROUNDING = (1.5e-4, 2e-2)
"""A median of those residuals within this range is 16-bit arithmetic (autocast), not a fault."""


def _rounds(metric: Metric) -> bool:
    """Whether a contract compares results of arithmetic, and not settings."""
    signed = metric.form == "signed" and metric.tolerance > EXACT_BELOW
    return metric.form == "residual" or signed


def tolerance_of(metric: Metric, dtype: str) -> float:
    """A contract's tolerance under ``dtype`` (the header's setting, e.g. ``torch.bfloat16``)."""
    floor = DTYPE_FLOOR.get(dtype.rsplit(".", maxsplit=1)[-1], 0.0)
    return max(metric.tolerance, floor) if _rounds(metric) else metric.tolerance


class Columns:
    """Arrays over the C columns of a header, and where each goes among the node features.

    Columns of single heads are left out: the graph's nodes are whole components. ``header`` is
    without them. Raises :class:`diagnoser.schema.SchemaMismatch` for a run with metrics that are
    not in the catalogue.
    """

    def __init__(self, header: Header) -> None:
        schema.check_header(header)
        whole = [at for at, column in enumerate(header.columns) if not is_head(column.site)]
        self._width = len(header.columns)
        self._whole = np.array(whole, dtype=np.int64)
        header = msgspec.structs.replace(header, columns=tuple(header.columns[at] for at in whole))
        self.header = header
        self.keys: tuple[str, ...] = tuple(column.key for column in header.columns)
        self.graph = graph.build(header.anatomy, schema.node_kinds())
        # Under autocast the arithmetic is 16-bit although the parameters are not.
        dtype = header.settings.get("autocast") or header.settings.get("dtype", "float32")
        nodes = {site.name: site.node for site in header.anatomy.sites}
        layers = {site.name: site.layer for site in header.anatomy.sites}
        stacks = {site.name: site.stack for site in header.anatomy.sites}
        defined = {(found.name, kind): found for found in header.metrics for kind in found.nodes}
        definitions: list[Metric] = []
        for column in header.columns:
            metric = defined.get((column.metric, kind_of(nodes.get(column.site, ""))))
            if metric is None:
                raise schema.SchemaMismatch(
                    f"run {header.run} has a column {column.key} that its header does not define: "
                    "the trace was written by another version or is damaged"
                )
            definitions.append(metric)
        self.metrics = tuple(definitions)
        self.sites = tuple(column.site for column in header.columns)
        self.nodes = tuple(nodes[site] for site in self.sites)
        self.kinds = tuple(kind_of(node) for node in self.nodes)
        self.layers = tuple(layers[site] for site in self.sites)
        self.form = np.array([FORMS.index(metric.form) for metric in definitions], dtype=np.int64)
        self.contract = np.array([metric.contract for metric in definitions], dtype=bool)
        self.tolerance = np.array([tolerance_of(m, dtype) for m in definitions], dtype=np.float32)
        self._rounds = np.array([_rounds(m) for m in definitions], dtype=bool)
        self._products = np.array([m.name in PLAIN_PRODUCTS for m in definitions], dtype=bool)
        self.floor = np.array([CHANGE_FLOOR[m.form] for m in definitions], dtype=np.float32)
        self.carried = np.array(
            [k in CARRIED_KINDS or m.rare for k, m in zip(self.kinds, definitions, strict=True)],
            dtype=bool,
        )
        self.residual = self.form == FORMS.index("residual")
        self._positive = self.form == FORMS.index("positive")
        self._bent = (self.form == FORMS.index("signed")) | (self.form == FORMS.index("statistic"))
        self.peers = self._peer_groups(stacks)
        self.targets = self._targets()

    def __len__(self) -> int:
        return len(self.keys)

    def values(self, frame: Frame) -> Floats:
        """A frame's raw values, (C,). Raises ``ValueError`` where its size is another."""
        raw = frame.array
        if raw.shape != (self._width,):
            raise ValueError(
                f"frame of step {frame.step} has {raw.size} values for {self._width} columns: "
                "the trace is damaged or belongs to another header"
            )
        return raw[self._whole]

    def transform(self, raw: Floats) -> Floats:
        """Raw values (..., C) to a scale on which differences compare; NaN stays NaN.

        Residuals and positive values: log10; signed values and statistics: asinh; shares as they
        are. Infinity is cut off at a large number, so that it counts as a change.
        """
        values = np.array(raw, dtype=np.float32)
        with np.errstate(all="ignore"):
            np.clip(values, -1e12, 1e12, out=values)
            values[..., self.residual] = np.log10(np.abs(values[..., self.residual]) + 1e-9)
            values[..., self._positive] = np.log10(np.abs(values[..., self._positive]) + 1e-12)
            values[..., self._bent] = np.arcsinh(values[..., self._bent])
        return values

    def tolerance_at(self, raw: Floats) -> Floats:
        """Tolerances (C,) for a frame's raw values (C,).

        Autocast leaves the parameters' dtype as it is: that a run computes in 16 bits shows in
        the median residual of its plain matrix products, which a fault in one place leaves alone.
        """
        products = raw[self._products]
        products = products[np.isfinite(products)]
        rounding = float(np.median(products)) if products.size else 0.0
        if not ROUNDING[0] < rounding < ROUNDING[1]:
            return self.tolerance
        widened = np.maximum(self.tolerance, np.float32(10.0 * rounding))
        return np.where(self._rounds, widened, self.tolerance)

    def excess(self, raw: Floats) -> Floats:
        """log10 of a frame's magnitudes over tolerance, moved and cut to [0, 6]: 1 is the
        tolerance itself. NaN stays NaN."""
        with np.errstate(all="ignore"):
            found = np.log10(np.maximum(np.abs(raw), 1e-30) / self.tolerance_at(raw))
        return np.asarray(np.clip(found, -1.0, 5.0) + 1.0, dtype=np.float32)

    def _peer_groups(self, stacks: dict[str, str]) -> npt.NDArray[np.int64]:
        """(groups, layers) column numbers of one metric over the layers, padded with -1."""
        groups: dict[tuple[str, str, str], list[int]] = {}
        for number, column in enumerate(self.header.columns):
            if self.layers[number] is not None:
                key = (stacks[column.site], self.nodes[number], column.metric)
                groups.setdefault(key, []).append(number)
        wide = [members for members in groups.values() if len(members) > 1]
        width = max((len(members) for members in wide), default=0)
        table = np.full((len(wide), width), -1, dtype=np.int64)
        for row, members in enumerate(wide):
            table[row, : len(members)] = members
        return table

    def _targets(self) -> dict[str, npt.NDArray[np.int64]]:
        """Kind -> (sites, metrics of the kind) column numbers, -1 where there is no column."""
        place = {key: number for number, key in enumerate(self.keys)}
        return {
            kind: np.array(
                [
                    [place.get(f"{site}/{metric.name}", -1) for metric in schema.metrics_of(kind)]
                    for site in self.graph.sites[kind]
                ],
                dtype=np.int64,
            ).reshape(len(self.graph.sites[kind]), len(schema.metrics_of(kind)))
            for kind in schema.node_kinds()
        }

    def restore(self, value: float, column: int) -> float:
        """A transformed value of one column back on the metric's own scale."""
        form = FORMS[self.form[column]]
        if form in ("residual", "positive"):
            return float(10.0**value)
        return float(np.sinh(value)) if form in ("signed", "statistic") else value
