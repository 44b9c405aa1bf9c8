"""The views of the screen: name, key, title, and the reason each exists."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

ViewName = Literal["overview", "diagnosis", "graph", "layers", "metrics", "events", "runs"]


class ViewInfo(Struct, frozen=True):
    """One view. ``purpose`` completes "this view is for …"."""

    name: ViewName
    key: str
    title: str
    purpose: str


VIEWS: tuple[ViewInfo, ...] = (
    ViewInfo("overview", "1", "Overview", "the state of the run at a glance"),
    ViewInfo("diagnosis", "2", "Diagnosis", "what is wrong, since when, why, and what to try"),
    ViewInfo("graph", "3", "Graph", "where in the model it sits, and what a component measures"),
    ViewInfo("layers", "4", "Layers", "one metric over all layers and steps"),
    ViewInfo("metrics", "5", "Metrics", "the curves, one to twelve charts at once"),
    ViewInfo("events", "6", "Events", "what happened, and a jump to when it did"),
    ViewInfo("runs", "7", "Runs", "other live runs and recorded ones, one key away"),
)
NAMES: tuple[ViewName, ...] = tuple(view.name for view in VIEWS)


def title_of(name: ViewName) -> str:
    """The title of a view."""
    return next(view.title for view in VIEWS if view.name == name)
