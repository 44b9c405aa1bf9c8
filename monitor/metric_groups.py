"""Which values belong on one chart: a metric of a node kind, one curve per layer."""

from __future__ import annotations

import re

from msgspec import Struct

from probe.schema import Header, Metric

_SITE = re.compile(
    r"(?:(?P<stack>[a-z_]+)\.)?(?P<node>[a-z_]+)(?:@(?P<layer>\d+))?(?:\.h(?P<head>\d+))?"
)


class Member(Struct, frozen=True):
    """One curve: a column of the frames, or a scalar by name."""

    label: str
    column: int = -1
    scalar: str = ""


class MetricGroup(Struct, frozen=True):
    """A chart's worth of values. ``key`` (``attention/entropy``) is what a filter is matched with.

    ``metric`` is the definition from the header, None for values the user logged.
    """

    key: str
    metric: Metric | None
    members: tuple[Member, ...]
    layered: bool

    @property
    def node(self) -> str:
        return self.key.rpartition("/")[0].rpartition(".")[2].partition("@")[0]

    @property
    def name(self) -> str:
        return self.key.rpartition("/")[2]

    @property
    def of_heads(self) -> bool:
        """One curve per head of a layer."""
        return "@" in self.key


def heads_key(key: str, layer: str) -> str:
    """The chart of a layer's heads: ``attention/entropy``, ``2`` -> ``attention@2/entropy``."""
    node, _, metric = key.rpartition("/")
    return f"{node}@{layer}/{metric}"


def whole_key(key: str) -> str:
    """The chart of all layers: ``attention@2/entropy`` -> ``attention/entropy``."""
    node, _, metric = key.rpartition("/")
    return f"{node.partition('@')[0]}/{metric}"


def group_key(site: str, metric: str) -> str:
    """The chart on which ``metric`` at ``site`` is drawn; per-head sites are grouped by layer."""
    match = _SITE.fullmatch(site)
    if match is None:
        return f"{site}/{metric}"
    stack = f"{match['stack']}." if match["stack"] else ""
    layer = f"@{match['layer']}" if match["head"] is not None else ""
    return f"{stack}{match['node']}{layer}/{metric}"


def scalar_key(header: Header | None, name: str) -> str:
    """Chart key of a per-step scalar: ``training/NAME`` where defined, else ``log/NAME``."""
    if "/" in name:
        return name
    if header is not None and header.metric(name, "training") is not None:
        return f"training/{name}"
    return f"log/{name}"


def groups_of(header: Header | None, scalars: tuple[str, ...]) -> dict[str, MetricGroup]:
    """All charts of a run, by key. A scalar (every step) hides the frames' value of that name."""
    groups = {}
    for name in scalars:
        key = scalar_key(header, name)
        node, _, metric = key.rpartition("/")
        definition = header.metric(metric, node) if header else None
        groups[key] = MetricGroup(key, definition, (Member("", scalar=name),), layered=False)
    if header is None:
        return groups
    members: dict[str, list[Member]] = {}
    definitions: dict[str, Metric | None] = {}
    for index, column in enumerate(header.columns):
        key = group_key(column.site, column.metric)
        if key in groups:
            continue
        match = _SITE.fullmatch(column.site)
        label = (match["head"] or match["layer"] or "") if match else ""
        members.setdefault(key, []).append(Member(label, column=index))
        if key not in definitions:
            node = match["node"] if match else column.site
            definitions[key] = header.metric(column.metric, node)
    for key, found in members.items():
        layered = found[0].label != ""
        groups[key] = MetricGroup(key, definitions[key], tuple(found), layered)
    return groups
