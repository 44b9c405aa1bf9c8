"""Real processes, each test in directories of its own."""

import shutil
import tempfile
from pathlib import Path

import pytest
from training_processes import StandIn


@pytest.fixture
def places(monkeypatch, tmp_path):
    """Registry and sockets of this test alone. Sockets need a short path."""
    runtime = Path(tempfile.mkdtemp(prefix="dpp-", dir="/tmp"))
    monkeypatch.setenv("DEFAULTPP_RUNTIME_DIR", str(runtime))
    monkeypatch.setenv("DEFAULTPP_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("DEFAULTPP_SETTINGS", "")
    monkeypatch.delenv("DEFAULTPP_DEBUG", raising=False)
    yield tmp_path
    shutil.rmtree(runtime, ignore_errors=True)


@pytest.fixture
def stand_in(places):
    """Starts stand-ins and ends them after the test."""
    started = []

    def start(*options, name="standin"):
        started.append(StandIn(places, *options, name=name))
        return started[-1]

    yield start
    for training in started:
        if training.process.poll() is None:
            training.kill()
        training.process.stdin.close()
        training.process.stdout.close()
