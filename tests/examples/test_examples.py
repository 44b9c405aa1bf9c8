"""Each example runs as it stands and leaves a trace with frames in which no contract fires."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "probe"))
from tiny_models import Seen

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(command: list[str], folder: Path) -> list[Path]:
    environment = os.environ | {
        "DEFAULTPP_STATE_DIR": str(folder / "state"),
        "DEFAULTPP_RUNTIME_DIR": str(folder / "run"),
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, cwd=folder, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return sorted((folder / "state" / "traces").glob("*.trace"))


@pytest.mark.parametrize(
    ("script", "model"),
    [
        ("plain_loop.py", "BertForSequenceClassification"),
        ("hf_trainer.py", "GPT2LMHeadModel"),
        ("hand_written.py", "TinyGPT"),
    ],
)
def test_example(script, model, tmp_path):
    traces = run([sys.executable, str(EXAMPLES / script), "--steps", "8"], tmp_path)
    assert len(traces) == 1
    seen = Seen(traces[0])
    assert seen.header.anatomy.model == model
    assert type(seen.records[-1]).__name__ == "End"
    assert seen["training/loss"].min() > 0
    assert seen.fired() == set()


def test_each_rank_of_torchrun_attaches_by_itself(tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    traces = run([*command, str(EXAMPLES / "torchrun_ddp.py"), "--steps", "6"], tmp_path)
    assert sorted(Seen(trace).header.rank for trace in traces) == [0, 1]
    for trace in traces:
        assert Seen(trace).header.world_size == 2
        assert Seen(trace).fired() == set()
