"""The views by name, each loaded when it is first wanted: the first screen needs one of seven."""

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


def made(name: ViewName) -> View:
    """A new view."""
    class_name = _CLASSES[name]
    module = "overview" if name == "overview" else f"{name}_view"
    view: View = getattr(import_module(f"monitor.views.{module}"), class_name)()
    return view
