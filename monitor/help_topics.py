"""What there is to say on a metric, a component or a root cause. Pure."""

from __future__ import annotations

from msgspec import Struct

from diagnoser.taxonomy import categories, root_causes
from monitor.formatting import ago, percent, spoken
from monitor.metric_groups import MetricGroup
from monitor.run_catalogue import ListedRun
from monitor.run_model import RunModel
from probe.nodes import kind_of
from probe.schema import Metric, Site

_FORMS = {
    "residual": "a relative error, read on a log scale",
    "share": "within 0 and 1",
    "signed": "0 in the middle",
    "positive": "above 0",
    "statistic": "any number",
}


def metric_lines(group: MetricGroup, absent: str) -> list[tuple[str, str]]:
    """What to know of a metric: (name, text) pairs."""
    metric: Metric | None = group.metric
    if metric is None:
        return [("meaning", "a value that the training logs itself")]
    kind = _FORMS[metric.form]
    if metric.contract:
        kind += "; a contract, whose healthy value is known exactly"
    lines = [
        ("meaning", metric.meaning),
        ("unit", metric.unit or "none"),
        ("healthy", metric.healthy),
        ("kind", kind),
    ]
    if metric.per_head:
        lines.append(("heads", "told of each head too: filter with @, e.g. @2 for layer 2"))
    if metric.source:
        lines.append(("source", metric.source))
    if absent:
        lines.append(("not here", absent))
    return lines


class HelpTopic(Struct, frozen=True):
    """One thing explained: ``lines`` are (name, text) pairs."""

    title: str
    lines: tuple[tuple[str, str], ...]


def metric_topics(model: RunModel, key: str | None) -> list[HelpTopic]:
    """The metric of a chart; nothing where the run has no such chart."""
    group = model.groups.get(key) if key else None
    if group is None:
        return []
    absent = "" if model.measured(group.key) else model.absence(group.key)
    return [HelpTopic(group.key, tuple(metric_lines(group, absent)))]


def run_topic(listed: ListedRun) -> HelpTopic:
    """A run of the list: where it is, and how it is opened from a shell."""
    if listed.entry is None:
        lines = [
            ("kind", "a trace: what a run recorded, also one that still runs"),
            ("written", f"{ago(listed.age)} ago"),
            ("what", listed.detail),
            ("file", str(listed.path)),
            ("open", f"defaultpp-monitor replay {listed.path}"),
        ]
    else:
        lines = [
            ("kind", "a live run: its probe can be paused and asked for samples"),
            ("begun", f"{ago(listed.age)} ago"),
            ("process", listed.detail),
            ("address", listed.entry.control),
            ("trace", listed.entry.trace or "not stored: what is missed here is gone"),
            ("open", f"defaultpp-monitor attach {listed.run}"),
        ]
    return HelpTopic(listed.name, tuple(lines))


def site_topic(site: Site, suspicion: float | None) -> HelpTopic:
    """A component of the model, and the fault categories that sit in such a one."""
    kind = kind_of(site.node)
    found = [category.title for category in categories().values() if kind in category.nodes]
    lines = [("component", spoken(site.node))]
    if site.layer is not None:
        lines.append(("layer", str(site.layer)))
    if suspicion is not None:
        lines.append(("suspicion", f"{percent(suspicion)} that the fault sits here"))
    lines += [("module", module) for module in site.modules]
    if site.where:
        lines.append(("code", site.where))
    if found:
        lines.append(("faults", "; ".join(found)))
    return HelpTopic(site.name, tuple(lines))


def cause_topic(category: str | None, root_cause: str | None) -> list[HelpTopic]:
    """A root cause in the taxonomy's words; nothing for one it does not know."""
    cause = root_causes().get(f"{category}/{root_cause}")
    if cause is None:
        return []
    told = (
        ("means", cause.meaning),
        ("symptoms", cause.symptoms),
        ("check", cause.check),
        ("repair", cause.repair),
    )
    name = f"{spoken(cause.category)} › {spoken(cause.name)}: {cause.title}"
    return [HelpTopic(name, tuple(line for line in told if line[1]))]
