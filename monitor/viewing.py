"""What the person chose to look at. Pure: no screen, no thread."""

from __future__ import annotations

import re
from collections.abc import Sequence

from msgspec import Struct, field

from diagnoser.diagnosis import Diagnosis
from monitor.charts.smoothing import WEIGHTS
from monitor.metric_groups import group_key
from monitor.pane_choice import PaneChoice
from monitor.run_model import RunModel
from monitor.step_window import Span, StepWindow
from monitor.view_names import NAMES, ViewName

GRIDS = (0, 1, 2, 4, 6, 9, 12)
"""Charts at once; 0: as many as fit."""

_FIRST = ("training/loss",)
_NEXT = ("training/grad_norm", "attention/entropy", "residual_ffn/branch_ratio", "output/entropy")


class Viewing(Struct):
    """Choices of the person; nothing here changes by itself."""

    view: ViewName = "overview"
    pattern: str = ""
    selected: str | None = None
    """Key of the chosen chart once the person has moved, else the first chart."""
    promoted: tuple[str, ...] = ()
    """Charts of the evidence, put first until the person moves."""
    log_toggled: set[str] = field(default_factory=set)
    heatmap: str | None = None
    frozen: int | None = None
    """While the view is paused: the step it was paused at."""
    steps: StepWindow = field(default_factory=StepWindow)
    smoothing: float = 0.0
    """One of WEIGHTS."""
    grid: int = 0
    """One of GRIDS."""
    alone: bool = False
    """The chosen chart takes the whole area."""
    by_time: bool = False
    """Charts run over wall-clock time instead of steps."""
    rank: int | None = None
    """Of several ranks the one shown; None: all together."""
    difference: str = ""
    """Letter of the compared run that is shown by its difference from the baseline."""
    choices: dict[ViewName, PaneChoice] = field(default_factory=dict)

    @property
    def choice(self) -> PaneChoice:
        """What was chosen among the panes of the view on screen."""
        return self.choices.setdefault(self.view, PaneChoice())

    def next_rank(self, ranks: Sequence[int]) -> int | None:
        """The next rank alone; after the last, all together."""
        order = [None, *ranks]
        at = order.index(self.rank) if self.rank in order else 0
        self.rank = order[(at + 1) % len(order)]
        return self.rank

    def next_view(self, by: int) -> ViewName:
        """The view that many further in the bar, round the ends."""
        return NAMES[(NAMES.index(self.view) + by) % len(NAMES)]

    def smooth_more(self) -> float:
        """The next weight of the smoothing; after the strongest, off."""
        self.smoothing = WEIGHTS[(WEIGHTS.index(self.smoothing) + 1) % len(WEIGHTS)]
        return self.smoothing

    def change_grid(self) -> int:
        """The next number of charts at once."""
        self.alone = False
        self.grid = GRIDS[(GRIDS.index(self.grid) + 1) % len(GRIDS)]
        return self.grid

    def whole(self, model: RunModel) -> Span:
        """All the steps there are to show."""
        first, last = model.reach
        last = self.frozen if self.frozen is not None else last
        return first, max(last or 0, first + 1)

    def span(self, model: RunModel) -> Span:
        """The steps that the charts show."""
        return self.steps.span(self.whole(model))

    def settled(self, model: RunModel) -> bool:
        """No more steps will come into what the charts show: the run is over, or zoomed into."""
        return model.over or self.steps.zoomed is not None

    def new_run(self) -> None:
        """Another run: what was chosen of the old one's steps means nothing."""
        self.frozen = None
        self.steps = StepWindow()
        self.rank = None
        self.selected, self.promoted = None, ()

    def promote(self, diagnosis: Diagnosis | None) -> None:
        """Put the charts of a faulty run's evidence first, unless the person chose a chart."""
        if self.selected is not None:
            return
        keys = evidence_keys(diagnosis) if diagnosis and diagnosis.verdict == "faulty" else ()
        self.promoted = keys or self.promoted

    def keys(self, model: RunModel) -> tuple[str, ...]:
        """Charts that pass the filter, in order: first what matters, last what is not measured.

        Charts of single layers' heads only where the filter asks for them with ``@``, or one was
        chosen.
        """
        heads = "@" in self.pattern
        groups = {
            key: group
            for key, group in model.groups.items()
            if heads or not group.of_heads or key == self.selected
        }
        first = dict.fromkeys((*_FIRST, *self.promoted, *_NEXT))
        measured = model.measured_keys
        ordered = [key for key in first if key in groups and key in measured]
        rest = sorted(groups, key=lambda key: key not in measured)
        keys = tuple(dict.fromkeys([*ordered, *rest]))
        if not self.pattern:
            return keys
        try:
            matcher = re.compile(self.pattern, re.IGNORECASE)
        except re.error:
            return ()
        return tuple(key for key in keys if matcher.search(key))

    def chosen(self, keys: tuple[str, ...]) -> int:
        """Index of the chosen chart among ``keys``; 0 where it is not among them."""
        return keys.index(self.selected) if self.selected in keys else 0

    def move(self, keys: tuple[str, ...], by: int) -> None:
        """Choose another chart, round the ends."""
        if keys:
            self.selected = keys[(self.chosen(keys) + by) % len(keys)]

    def page(self, keys: tuple[str, ...], places: int) -> tuple[int, tuple[str, ...]]:
        """Index of the first chart on the page that holds the chosen one, and the page."""
        start = self.chosen(keys) // max(places, 1) * places
        return start, keys[start : start + places]

    def is_log(self, model: RunModel, key: str) -> bool:
        """Residuals are logarithmic unless the person says otherwise, others the other way."""
        group = model.groups.get(key)
        residual = group is not None and group.metric is not None
        residual = residual and group.metric.form == "residual"  # type: ignore[union-attr]
        return residual != (key in self.log_toggled)

    def heatmap_key(self, model: RunModel) -> str | None:
        """The chosen metric, else the evidence's first with layers, else the first measured."""
        groups = model.groups
        usual = ("attention/entropy", "residual_ffn/branch_ratio")
        for key in (self.heatmap, *self.promoted, *usual):
            if key and key in groups and groups[key].layered:
                return key
        return next(iter(self.layered_keys(model)), None)

    def layered_keys(self, model: RunModel) -> list[str]:
        """Metrics that have layers, those with values first; while the heads of a layer are looked
        at, those of its heads."""
        group = model.groups.get(self.heatmap or "")
        layer = _layer_of(group.key) if group is not None and group.of_heads else ""
        keys = [
            key
            for key, group in model.groups.items()
            if group.layered and (_layer_of(key) == layer if group.of_heads else not layer)
        ]
        return sorted(keys, key=lambda key: not model.measured(key))

    def heat_keys(self, model: RunModel) -> list[str]:
        """Everything a heatmap can show: metrics that have layers, then those of heads."""
        groups = [group for group in model.groups.values() if group.layered]
        order = sorted(groups, key=lambda g: (g.of_heads, not model.measured(g.key)))
        return [group.key for group in order]


def _layer_of(key: str) -> str:
    """``decoder.attention@2/entropy`` -> ``decoder@2``."""
    site = key.rpartition("/")[0]
    return f"{site.rpartition('.')[0]}@{site.partition('@')[2]}"


def pattern_error(pattern: str) -> str:
    """Why a regular expression cannot be used, in one sentence; empty if it can."""
    try:
        re.compile(pattern)
    except re.error as error:
        return f"not a regular expression: {error}"
    return ""


def evidence_keys(diagnosis: Diagnosis) -> tuple[str, ...]:
    """Charts that the evidence speaks of, each once."""
    return tuple(dict.fromkeys(group_key(e.site, e.metric) for e in diagnosis.evidence))
