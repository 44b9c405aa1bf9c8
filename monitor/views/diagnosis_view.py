"""The diagnosis: verdict over time, causes, evidence and the way to its charts."""

from __future__ import annotations

from msgspec.structs import replace
from textual import on
from textual.app import ComposeResult
from textual.containers import Container, Vertical

from diagnoser.diagnosis import Evidence
from monitor.chart_data import marks_of
from monitor.charts.chart_pane import ChartPane
from monitor.help_topics import HelpTopic, cause_topic, metric_topics
from monitor.metric_groups import group_key
from monitor.telling_apart import clues
from monitor.views import chart_page
from monitor.views.view import View
from monitor.widgets.causes_pane import Alternative, CausesPane, alternatives_of
from monitor.widgets.evidence_pane import EvidencePane
from monitor.widgets.list_pane import ListPane
from monitor.widgets.list_window import stepped
from monitor.widgets.verdict_bands import VerdictBands


class DiagnosisView(View):
    """What is wrong, since when, why, and what to try."""

    view_name = "diagnosis"
    main_pane = "causes"

    def __init__(self) -> None:
        super().__init__()
        self._chosen = 0
        self._cause = 0
        """Place in the ranking; it counts while the causes are the chosen pane."""

    def compose(self) -> ComposeResult:
        yield VerdictBands(id="bands").add_class("pane")
        with Container(id="reasons"):
            yield CausesPane(id="causes").add_class("pane")
            with Vertical(id="observations"):
                yield EvidencePane(id="evidence").add_class("pane")
                yield ChartPane(id="evidence-chart").add_class("companion")

    @property
    def _evidence(self) -> tuple[Evidence, ...]:
        diagnosis = self.monitor.shown.diagnosis.diagnosis
        return diagnosis.evidence if diagnosis else ()

    def draw(self) -> None:
        app = self.monitor
        state = app.shown.diagnosis
        history = app.verdicts.bands(app.viewing.frozen)
        bands = self.query_one(VerdictBands)
        wanted = bands.lines_wanted(history, max(5, self.size.height * 2 // 5))
        self.size_pane(bands, height=wanted)
        if bands.size.height != wanted:
            self.call_after_refresh(self._draw_bands)
        self._draw_bands()
        causes = self.query_one(CausesPane)
        causes.show(state, self._alternatives(), self._cause if self._in_causes else None)
        self._chosen = min(self._chosen, max(0, len(self._evidence) - 1))
        self.query_one(EvidencePane).show(self._evidence, self._chosen)
        found = self._evidence[self._chosen] if self._evidence else None
        key = group_key(found.site, found.metric) if found else None
        chart_page.companion(self.query_one(ChartPane), app, key)

    def _draw_bands(self) -> None:
        if not self.is_mounted or not self.app.is_running:
            return
        app = self.monitor
        viewing = app.viewing
        marks = marks_of(app.model, app.shown.diagnosis.diagnosis, viewing.frozen)
        history = app.verdicts.bands(viewing.frozen)
        span = viewing.span(app.model)
        self.query_one(VerdictBands).show(
            history, span, marks, viewing.steps.cursor, viewing.settled(app.model)
        )

    def _alternatives(self) -> list[Alternative]:
        diagnosis = self.monitor.shown.diagnosis.diagnosis
        if diagnosis is None or diagnosis.verdict != "faulty":
            return []
        best = f"{diagnosis.category}/{diagnosis.root_cause}"
        return [
            Alternative(
                category,
                cause,
                probability,
                clues(best, f"{category}/{cause}", self.monitor.model, self.monitor.viewing.frozen),
            )
            for category, cause, probability in alternatives_of(diagnosis)
        ]

    @property
    def _in_causes(self) -> bool:
        return self.choice.current == "causes"

    @property
    def _causes(self) -> list[tuple[str | None, str | None]]:
        """Category and root cause of the entries on screen, the one found first."""
        diagnosis = self.monitor.shown.diagnosis.diagnosis
        if diagnosis is None or diagnosis.verdict != "faulty":
            return []
        others = [(category, cause) for category, cause, _ in alternatives_of(diagnosis)]
        found = [(diagnosis.category, diagnosis.root_cause), *others]
        return found[: max(1, self.query_one(CausesPane).entries)]

    def choose(self, by: int) -> None:
        if self._in_causes and self._causes:
            self._cause = stepped(self._cause, by, len(self._causes))
            self.monitor.acted()
        elif self._evidence and not self._in_causes:
            self._chosen = stepped(self._chosen, by, len(self._evidence))
            self.monitor.acted()

    def point_at(self, pane: ListPane) -> None:
        """The keys go through the causes while these are the chosen pane, else the evidence."""
        if self._in_causes != (pane.id == "causes"):
            self.choice.current = pane.id
            self.arrange_panes()

    @property
    def labels(self) -> dict[str, str]:
        if not self._in_causes:
            return {}
        return {"choose(-1)": "Cause", "enter": "What it means"}

    def enter(self) -> None:
        if self._in_causes and self._causes:
            self.monitor.action_help()
            return
        if not self._evidence:
            self.monitor.say("there is no evidence to show on a chart")
            return
        found = self._evidence[self._chosen]
        self.monitor.show_chart(group_key(found.site, found.metric), found.since_step)

    def help_topics(self) -> list[HelpTopic]:
        causes = self._causes
        at = min(self._cause, len(causes) - 1) if self._in_causes else 0
        found = cause_topic(*causes[at]) if causes else []
        if at > 0:
            # In full what the pane has little room for: what was measured for and against it.
            clues = self._alternatives()[at - 1].clues
            told = tuple(("against" if c.against else "for", c.sentence()) for c in clues)
            found = [replace(topic, lines=topic.lines + told) for topic in found]
        if self._evidence and not self._in_causes:
            shown = self._evidence[self._chosen]
            key = group_key(shown.site, shown.metric)
            found += metric_topics(self.monitor.model, key)
        return found

    @on(CausesPane.Clicked, "#causes")
    def _cause_clicked(self, message: CausesPane.Clicked) -> None:
        self.choice.current, self._cause = "causes", message.index
        self.arrange_panes()
        self.monitor.acted()
        if message.twice:
            self.enter()

    @on(EvidencePane.Clicked, "#evidence")
    def _clicked(self, message: EvidencePane.Clicked) -> None:
        self._chosen = message.index
        self.monitor.acted()
        if message.twice:
            self.enter()
