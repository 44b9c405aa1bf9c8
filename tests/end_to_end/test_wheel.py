"""The wheel, installed away from the checkout, has weights, data and styles and runs the demo."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run(command: list[str], cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=cwd, env=os.environ | environment, capture_output=True, text=True, check=False
    )


def test_the_wheel_installed_elsewhere_runs_the_demo(tmp_path):
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    built = run([*pip, "wheel", "--no-deps", "-w", str(tmp_path), str(ROOT)], tmp_path)
    assert built.returncode == 0, built.stderr[-2000:]
    wheel = next(tmp_path.glob("*.whl"))
    site = tmp_path / "site"
    done = run([*pip, "install", "--no-deps", "--target", str(site), str(wheel)], tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert list((site / "diagnoser" / "weights").glob("*.safetensors"))
    assert list((site / "monitor").rglob("*.tcss"))
    assert {"report.css", "hover.js"} <= {f.name for f in (site / "monitor" / "report").iterdir()}
    command = [sys.executable, "-m", "monitor.cli", "demo", "--headless", "--json"]
    demo = run(
        [*command, "--steps", "45", "--fault", "residual/skip_connection"],
        tmp_path,
        PYTHONPATH=str(site),
        DEFAULTPP_STATE_DIR=str(tmp_path / "state"),
        DEFAULTPP_RUNTIME_DIR=str(tmp_path / "run"),
    )
    assert demo.returncode == 1, demo.stderr[-2000:]
    answer = json.loads(demo.stdout)
    assert answer["verdict"] == "faulty" and answer["category"] == "residual"
    where = run(
        [sys.executable, "-c", "import probe; print(probe.__file__)"],
        tmp_path,
        PYTHONPATH=str(site),
    )
    assert where.stdout.startswith(str(site))
