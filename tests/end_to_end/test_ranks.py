"""Two ranks under torchrun: DDP, FSDP2, and a probe on one rank only."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from probe.schema import End, Frame, Header
from probe.trace import load

pytestmark = pytest.mark.xdist_group("ranks")  # one launch for all
WORK = Path(__file__).with_name("ranks_at_work.py")
MODES = ("ddp", "no_sync", "fsdp", "fsdp1", "alone")
NAMES = {
    "ddp": "DDP under torchrun, two gloo ranks",
    "no_sync": "DDP that accumulates under `no_sync`",
    "fsdp1": "FSDP1 under torchrun, two gloo ranks (components are not read)",
    "fsdp": "FSDP2 under torchrun, two gloo ranks (weights are not read)",
    "alone": "DDP, the probe on one rank only",
}
by_mode = pytest.mark.parametrize(
    "mode",
    [
        pytest.param(mode, marks=pytest.mark.works_with("Several ranks", name))
        for mode, name in NAMES.items()
    ],
)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What each rank wrote, by mode; one launch for all, which is what takes the time."""
    folder = tmp_path_factory.mktemp("ranks")
    places = {"DEFAULTPP_STATE_DIR": folder / "s", "DEFAULTPP_RUNTIME_DIR": folder / "r"}
    environment = os.environ | {name: str(path) for name, path in places.items()}
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*command, str(WORK), str(folder), *MODES],
        env=environment | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    results = {
        mode: [json.loads((folder / f"{mode}-{rank}.json").read_text()) for rank in (0, 1)]
        for mode in MODES
    }
    return folder, results


def trace(folder, mode, rank):
    return load(folder / (f"{mode}.trace" if rank == 0 else f"{mode}.rank1.trace"))


@by_mode
def test_nothing_changes_by_being_watched(found, mode):
    for rank in found[1][mode]:
        for name in ("losses", "weights", "rng"):
            assert rank["watched"][name] == rank["plain"][name], name


@by_mode
def test_the_probe_calls_no_collective_and_no_rank_waits_for_another(found, mode):
    """gloo numbers every collective, from wherever it is called. With the probe on one rank only,
    one that it called would never end."""
    for rank in found[1][mode]:
        assert rank["plain"]["collectives"] > 0
        assert rank["watched"]["collectives"] == rank["plain"]["collectives"]


@pytest.mark.parametrize("mode", ["ddp", "no_sync", "fsdp", "fsdp1"])
def test_the_ranks_are_one_run(found, mode):
    folder, results = found
    zero, one = (rank["watched"] for rank in results[mode])
    assert zero["run"] == one["run"]
    assert zero["ranks"] == one["ranks"] == [0, 1]
    for rank in (zero, one):  # what a monitor offers
        assert len(rank["listed"]) == 1
        assert rank["listed"][0].startswith(f"{mode}  RUN  2 ranks  pid ")
    for rank in (0, 1):
        records = trace(folder, mode, rank)
        header = next(r for r in records if isinstance(r, Header))
        frames = [r for r in records if isinstance(r, Frame)]
        assert (header.run, header.rank, header.world_size) == (zero["run"], rank, 2)
        assert [(f.step, f.rank) for f in frames] == [(step, rank) for step in range(5)]
        assert isinstance(records[-1], End) and records[-1].rank == rank
        assert not [r for r in records if getattr(r, "kind", "") == "probe_off"]


def test_runs_one_after_the_other_are_different_runs(found):
    runs = {found[1][mode][0]["watched"]["run"] for mode in MODES}
    assert len(runs) == len(MODES)


def test_of_sharded_weights_only_what_a_shard_can_tell_is_measured(found):
    records = trace(found[0], "fsdp", 1)
    header = next(r for r in records if isinstance(r, Header))
    frames = np.stack([r.array for r in records if isinstance(r, Frame)])
    values = {c.key: frames[:, at] for at, c in enumerate(header.columns)}
    for key in ("attention@1/update_ratio", "ffn@2/grad_norm", "mask@0/leaked", "qkv@0/q_norm"):
        assert np.isfinite(values[key]).all(), key
    assert (values["ffn@1/unmoved"] == 0).all()
    for key in ("qkv@1/q_weight", "norm_ffn@0/gamma_zero", "ffn@1/constant_weights"):
        assert np.isnan(values[key]).all(), key
        chart = f"{key.partition('@')[0]}/{key.rpartition('/')[2]}"
        assert "spread over ranks" in header.absent[chart], key
    # Of a fused projection one rank may hold the queries, the other the values.
    assert np.isnan(values["qkv@1/grad_norm"]).all()
    assert "stands for the whole" in header.absent["qkv@1/grad_norm"]
    assert np.isnan(values["training/grad_norm"]).all()
    assert "no rank knows" in header.absent["training/grad_norm"]
    assert header.anatomy.model == "TinyGPT" and header.anatomy.layers == 3


def test_of_flat_parameters_nothing_fires_and_the_reason_is_told(found):
    records = trace(found[0], "fsdp1", 1)
    header = next(r for r in records if isinstance(r, Header))
    frames = np.stack([r.array for r in records if isinstance(r, Frame)])
    values = {c.key: frames[:, at] for at, c in enumerate(header.columns)}
    assert np.isfinite(values["training/learning_rate"]).all()
    assert np.isnan(values["training/grad_norm"]).all()
    nodes = {site.name: site.node for site in header.anatomy.sites}
    for column in header.columns:
        metric = header.metric(column.metric, nodes.get(column.site.partition(".h")[0], ""))
        if metric is not None and metric.contract:
            seen = np.abs(values[column.key])
            assert not (seen > metric.tolerance).any(), column.key
    for chart in ("ffn/unmoved", "qkv/q_weight"):
        assert "FSDP1" in header.absent[chart]


def test_a_shards_gradient_is_on_the_scale_of_the_whole(found):
    """A root mean square over a part of the elements stands for all of them."""
    whole, part = (
        {
            c.key: float(frame.array[at])
            for frame in [next(r for r in records if isinstance(r, Frame))]
            for at, c in enumerate(next(r for r in records if isinstance(r, Header)).columns)
        }
        for records in (trace(found[0], mode, 0) for mode in ("ddp", "fsdp"))
    )
    for key in ("attention@1/grad_norm", "ffn@0/grad_norm", "ffn@2/update_ratio"):
        assert math.isclose(part[key], whole[key], rel_tol=0.5), key
