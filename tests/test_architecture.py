"""Imports go one way, monitor -> diagnoser -> probe, and the probe stays light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FORBIDDEN = {"probe": {"diagnoser", "monitor"}, "diagnoser": {"monitor"}, "monitor": set()}


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("package", FORBIDDEN)
def test_imports_go_one_way(package):
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    wrong = {str(f): imported(f) & FORBIDDEN[package] for f in files}
    assert not {file: names for file, names in wrong.items() if names}


def modules_after(statement: str) -> set[str]:
    code = f"import sys; {statement}; print('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return {name.split(".")[0] for name in done.stdout.split()}


def test_attaching_loads_nothing_heavy_beside_torch():
    loaded = modules_after("import probe; probe.attach")
    assert {"torch", "zmq", "msgspec"} <= loaded
    assert not loaded & {"textual", "rich", "torch_geometric", "transformers", "lightning"}


def test_the_wire_is_read_without_torch():
    assert "torch" not in modules_after("import probe.schema, probe.trace, probe.client")


def test_files_stay_readable():
    long = {
        str(f.relative_to(ROOT)): n
        for package in FORBIDDEN
        for f in (ROOT / package).rglob("*.py")
        if (n := len(f.read_text().splitlines())) > 520
    }
    assert not long
