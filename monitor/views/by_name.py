"""The views by name, each loaded by itself: the first screen needs one of seven."""

from __future__ import annotations

from importlib import import_module

from monitor.view_names import ViewName
from monitor.views.view import View

_CLASSES: dict[ViewName, str] = {
    "overview": "Overview",
    "diagnosis": "DiagnosisView",
    "graph": "GraphView",
    "layers": "LayersView",
    "metrics": "MetricsView",
    "events": "EventsView",
    "runs": "RunsView",
}


def loaded(name: ViewName) -> type[View]:
    """The class of a view."""
    module = "overview" if name == "overview" else f"{name}_view"
    found: type[View] = getattr(import_module(f"monitor.views.{module}"), _CLASSES[name])
    return found
