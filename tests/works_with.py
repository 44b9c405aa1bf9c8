"""What works with what, from the outcomes of tests.

A test belongs to a row by ``@pytest.mark.works_with("Trainers", "HF Trainer, bf16")``; without the
second, the row is named by the test's parameter ``family`` or ``way``. A row works if all its tests
passed.
"""

from __future__ import annotations

import platform
from importlib import metadata
from pathlib import Path

HEAD = """\
# What works with what

Generated from the tests' results by

    pytest -n 0 -m works_with --works-with=docs/works-with.md

Each row is what its tests do: a real run, the same bit for bit with and without the probe where
the two are compared, followed step by step, and without a contract that fires. What is not
measured stands in the header of each run with its reason; `defaultpp-monitor doctor --model` tells
it beforehand.

{versions}.
"""
PACKAGES = ("torch", "transformers", "accelerate", "lightning", "peft", "trl")


class Table:
    """A pytest plugin that gathers outcomes and writes the table at the end."""

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self._of: dict[str, tuple[str, str]] = {}
        self._outcomes: dict[tuple[str, str], list[str]] = {}

    def pytest_collection_modifyitems(self, items) -> None:
        for item in items:
            for marker in item.iter_markers("works_with"):
                params = item.callspec.params if hasattr(item, "callspec") else {}
                named = params.get("family", params.get("way"))
                name = marker.args[1] if len(marker.args) > 1 else named
                if name is not None:
                    self._of[item.nodeid] = (marker.args[0], str(name))

    def pytest_runtest_logreport(self, report) -> None:
        row = self._of.get(report.nodeid)
        if row is None:
            return
        if report.when == "call" or report.outcome != "passed":
            self._outcomes.setdefault(row, []).append(_said(report))

    def pytest_sessionfinish(self, session) -> None:
        lines = [HEAD.format(versions=_versions())]
        for group in sorted({group for group, _ in self._outcomes}):
            lines += [f"\n## {group}\n", "| | | tests |", "|---|---|---|"]
            lines += [
                f"| {name} | {_verdict(said)} | {len(said)} |"
                for (own, name), said in self._outcomes.items()
                if own == group
            ]
        self._path.write_text("\n".join(lines) + "\n")


def _said(report) -> str:
    if report.outcome == "skipped":
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        return reason.removeprefix("Skipped: ")
    return report.outcome


def _verdict(said: list[str]) -> str:
    if "failed" in said:
        return "**fails**"
    skipped = [text for text in said if text != "passed"]
    return f"not tried: {skipped[0]}" if skipped else "works"


def _versions() -> str:
    found = [f"Python {platform.python_version()}"]
    for name in PACKAGES:
        try:
            found.append(f"{name} {metadata.version(name).partition('+')[0]}")
        except metadata.PackageNotFoundError:
            continue
    return ", ".join(found)
