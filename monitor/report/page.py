"""The page of a report: one HTML text that needs nothing beside it."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files

from diagnoser.diagnosis import Diagnosis
from diagnoser.phrases import layer_list
from diagnoser.taxonomy import root_causes
from monitor.chart_data import chart_data
from monitor.charts.line_chart import SERIES_COLOURS
from monitor.comparison import Comparison
from monitor.formatting import ago, number, percent, spoken
from monitor.metric_groups import group_key
from monitor.palette import DARK, LIGHT, palette_for
from monitor.report import svg_chart, timeline
from monitor.report.gathering import Gathered
from monitor.viewing import Viewing
from probe.schema import Event

_VERDICTS = {
    "faulty": ("✗", "FAULTY"),
    "healthy": ("✓", "healthy"),
    "insufficient": ("◌", "not enough evidence"),
}
_ROLES = (
    "fg", "muted", "faint", "hollow", "ground", "accent", "ok", "warn", "bad",
    *(f"s{number}" for number in range(SERIES_COLOURS)),
)  # fmt: skip


def page(found: Gathered) -> str:
    """The whole file. Whatever the run says is escaped; nothing is loaded from anywhere."""
    style, script = (
        files("monitor.report").joinpath(name).read_text(encoding="utf-8")
        for name in ("report.css", "hover.js")
    )
    title = f"{found.header.name or found.header.run} · defaultpp-monitor"
    body = "\n".join(
        section
        for section in (
            _verdict(found),
            _timeline(found),
            _evidence(found),
            _causes(found.diagnosis),
            _charts(found),
            _events(tuple(found.model.events)),
            _facts(found),
        )
        if section
    )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        "style-src 'unsafe-inline'; script-src 'unsafe-inline'\">\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{escape(title)}</title>\n<style>\n{_colours()}\n{style}</style></head>\n"
        f'<body><main>\n{body}\n</main><div id="told" hidden></div>\n'
        f"<script>\n{script}</script></body></html>\n"
    )


def _colours() -> str:
    """The monitor's own colours as CSS variables, light and dark as the reader prefers."""
    sets = []
    for theme in (LIGHT, DARK):
        colours = palette_for(theme).colours
        sets.append(" ".join(f"--{role}: {colours[role]};" for role in _ROLES))
    rules = [f":root {{ {sets[0]} }}"]
    rules.append(f"@media (prefers-color-scheme: dark) {{ :root {{ {sets[1]} }} }}")
    rules += [f".s{n} {{ --series: var(--s{n}); }}" for n in range(SERIES_COLOURS)]
    return "\n".join(rules)


def _section(title: str, content: str, name: str = "") -> str:
    identity = f' id="{name}"' if name else ""
    return f"<section{identity}><h2>{escape(title)}</h2>\n{content}</section>"


def _verdict(found: Gathered) -> str:
    diagnosis, header = found.diagnosis, found.header
    sign, word = _VERDICTS[diagnosis.verdict]
    lines = []
    if diagnosis.verdict != "insufficient" and math.isfinite(diagnosis.probability):
        lines.append(f"Probability of a fault: {percent(diagnosis.probability)}")
    if diagnosis.verdict == "faulty":
        since = diagnosis.first_flagged_step
        where = layer_list(diagnosis.layers)
        lines.append(
            ", ".join(part for part in (where, f"since step {since}" if since else "") if part)
        )
    if diagnosis.crash is not None:
        lines.append(f"Died at step {diagnosis.crash.step}: {diagnosis.crash.text}")
        if diagnosis.crash.category is not None:
            lines.append(f"Likely {spoken(diagnosis.crash.category)}: {diagnosis.crash.reason}")
    cause = ""
    if diagnosis.verdict == "faulty" and diagnosis.category:
        cause = f"<p class='cause'>{escape(_named(diagnosis))}</p>"
    repair = ""
    if diagnosis.repair:
        repair = f'<p class="repair"><b>Try:</b> {escape(diagnosis.repair)}</p>'
    told = "".join(f"<p>{escape(line)}</p>" for line in lines if line)
    anatomy = header.anatomy
    return (
        f'<header class="{diagnosis.verdict}"><p class="run">{escape(header.name or header.run)}'
        f"<span>{escape(anatomy.model)}, {anatomy.layers} layers × {anatomy.width}, "
        f"{diagnosis.frames} sampled steps up to step {diagnosis.last_step}</span></p>"
        f'<h1><span class="sign">{sign}</span> {word}</h1>{cause}{told}{repair}</header>'
    )


def _named(diagnosis: Diagnosis) -> str:
    name = f"{'Unsure: ' if diagnosis.unsure else ''}{spoken(diagnosis.category or '')}"
    known = root_causes().get(f"{diagnosis.category}/{diagnosis.root_cause}")
    if diagnosis.root_cause:
        name += f" › {spoken(diagnosis.root_cause)}"
    return f"{name}: {known.title}" if known else name


def _timeline(found: Gathered) -> str:
    bands = found.verdicts.bands()
    if bands is None:
        return ""
    return _section("Verdict over time", timeline.draw(bands), "timeline")


def _evidence(found: Gathered) -> str:
    items = []
    for evidence in found.diagnosis.evidence:
        key = group_key(evidence.site, evidence.metric)
        link = (
            f'<a href="#{_anchor(key)}">{escape(key)}</a>' if key in found.charts else escape(key)
        )
        items.append(
            f"<li>{escape(evidence.text)}<small>{link} at {escape(evidence.site)}: "
            f"{number(evidence.value)}, expected {escape(evidence.expected)}, since step "
            f"{evidence.since_step}</small></li>"
        )
    if not items:
        return _section("Evidence", "<p>Nothing speaks for a fault.</p>", "evidence")
    return _section("Evidence", f"<ul>{''.join(items)}</ul>", "evidence")


def _causes(diagnosis: Diagnosis) -> str:
    if diagnosis.verdict != "faulty" or not diagnosis.ranking:
        return ""
    rows = []
    for candidate in diagnosis.ranking:
        cause = root_causes().get(f"{candidate.category}/{candidate.root_cause}")
        check = escape(cause.check) if cause else ""
        rows.append(
            f'<tr><td class="number">{percent(candidate.probability)}</td><td><span class="bar">'
            f'<i style="width: {candidate.probability:.1%}"></i></span></td>'
            f"<td>{escape(spoken(candidate.category))} › {escape(spoken(candidate.root_cause))}"
            f"<small>{check}</small></td></tr>"
        )
    head = "<tr><th colspan='2'>probability</th><th>root cause, and how to check it</th></tr>"
    return _section("What it may be", f"<table>{head}{''.join(rows)}</table>", "causes")


def _charts(found: Gathered) -> str:
    viewing = Viewing()
    viewing.promote(found.diagnosis)
    figures = []
    for key in found.charts:
        data = chart_data(found.model, viewing, found.diagnosis, key, False, Comparison())
        metric = found.model.groups[key].metric
        flag = ' <span class="flag">◆ speaks for the diagnosis</span>' if data.flagged else ""
        unit = " ".join(part for part in (data.unit, "log axis" if data.log else "") if part)
        meaning = f"{metric.meaning}; healthy: {metric.healthy}" if metric else "logged by the run"
        figures.append(
            f'<figure id="{_anchor(key)}"><figcaption><b>{escape(key)}</b> '
            f"<span>{escape(unit)}</span>{flag}<small>{escape(meaning)}</small></figcaption>"
            f"{svg_chart.draw(data)}</figure>"
        )
    note = (
        "<p class='muted'>One curve per layer, numbered at its end. ▲ a fault injected on purpose, "
        "◆ the verdict first held, ▵ another event; shaded: the healthy range; × NaN, ↑ ↓ "
        "infinity. The pointer tells values.</p>"
    )
    return _section("Charts", f"{note}<div class='grid'>{''.join(figures)}</div>", "charts")


def _events(events: Sequence[Event]) -> str:
    rows = "".join(
        f'<tr><td class="number">{event.step}</td><td>{escape(event.kind.replace("_", " "))}</td>'
        f"<td>{escape(event.text)}</td></tr>"
        for event in events
    )
    if not rows:
        return ""
    head = "<tr><th>step</th><th>kind</th><th>what happened</th></tr>"
    return _section("Events", f"<table>{head}{rows}</table>", "events")


def _facts(found: Gathered) -> str:
    header, model = found.header, found.model
    anatomy = header.anatomy
    began = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(header.created))
    ended = f"{model.end.reason} (step {model.end.step})" if model.end else "no end was recorded"
    facts = {
        "run": header.run,
        "host": f"{header.host}, pid {header.pid}",
        "ranks": str(header.world_size),
        "began": began,
        "lasted": ago(max(0.0, model.end.time - header.created)) if model.end else "",
        "ended": ended,
        "model": f"{anatomy.model}, {anatomy.kind}",
        "shape": f"{anatomy.layers} layers × {anatomy.width}, {anatomy.heads} heads "
        f"({anatomy.kv_heads} key/value) × {anatomy.head_dim}, vocabulary {anatomy.vocabulary}",
        "parameters": number(anatomy.parameters),
        "norms, positions": f"{anatomy.norm_order}, {anatomy.positions}",
        "steps": f"{model.first_step} to {model.step}, {model.frames} of them sampled",
        **{f"setting {name}": value for name, value in header.settings.items()},
        **{f"version of {name}": value for name, value in header.versions.items()},
        "trace": found.path.name,
    }
    content = _pairs(facts.items())
    if header.absent:
        content += (
            f"<details><summary>{len(header.absent)} metrics not measured, and why</summary>"
            f"{_pairs(sorted(header.absent.items()))}</details>"
        )
    return _section("Facts of the run", content, "facts")


def _pairs(pairs: Iterable[tuple[str, str]]) -> str:
    rows = "".join(
        f"<tr><th>{escape(name)}</th><td>{escape(text)}</td></tr>" for name, text in pairs if text
    )
    return f'<table class="pairs">{rows}</table>'


def _anchor(key: str) -> str:
    return "chart-" + escape(key.replace("/", "-").replace("@", "-"))
