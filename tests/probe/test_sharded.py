"""Which metrics need weights, and which launch a rank belongs to."""

from __future__ import annotations

import math

import pytest
import torch
from family_models import batch, make
from torch import nn

from probe import ranks, sharded
from probe.batch import read_output
from probe.capture import Capturing, batch_of
from probe.directories import rank_path
from probe.measurement import measure_forward
from probe.overrides import find_with
from probe.stopwatch import Stopwatch


def captured(parts, family):
    torch.manual_seed(5)
    given = batch(family)
    capturing = Capturing(parts, batch_of(parts, (), given), pytest.fail, Stopwatch())
    with torch.no_grad():
        loss, logits = read_output(parts.root(**given))
    capture = capturing.close()
    capture.loss, capture.logits = loss, logits
    return capture


def flat(values):
    return {(s, m): float(v) for s, found in values.items() for m, v in found.items()}


@pytest.mark.parametrize("family", ["gpt2", "llama", "bert", "torch encoder"])
@torch.no_grad()
def test_what_is_measured_without_weights_does_not_depend_on_them(family, monkeypatch):
    """With other weights than those that ran, every metric that reads one says something else."""
    model = make(family)
    for parameter in model.parameters():
        parameter.add_(torch.randn_like(parameter) * 0.1)
    parts = find_with(model, None)
    captured(parts, family)  # settles the anatomy
    whole = flat(measure_forward(parts, captured(parts, family)).values)

    def without(blank):
        monkeypatch.setattr(sharded, "_nothing", blank)
        capture = captured(parts, family)
        with sharded.unread(model, lambda parameter: True) as unknown:
            values = measure_forward(parts, capture).values
        return flat(sharded.measured(values, parts, unknown))

    nothing = sharded._nothing
    others = (
        lambda p: nn.Parameter(torch.zeros_like(p)),
        lambda p: nn.Parameter(torch.randn_like(p)),
    )
    found = [without(blank) for blank in (nothing, *others)]
    assert len(found[0]) > 60
    for key in found[0]:
        for values in found:
            same = values[key] == whole[key] or math.isnan(whole[key]) or math.isnan(values[key])
            assert same, (key, values[key], whole[key])
    assert all(p.isfinite().all() for p in model.parameters())  # put back


@pytest.mark.parametrize("node", sharded.OF_WEIGHTS)
def test_the_metrics_named_exist(node):
    from probe.catalogue import METRICS

    known = {metric.name for metric in METRICS if node in metric.nodes}
    assert set(sharded.OF_WEIGHTS[node]) <= known


ONE_MACHINE = {"TORCHELASTIC_RUN_ID": "none", "LOCAL_WORLD_SIZE": "2"}
TWO_MACHINES = {"TORCHELASTIC_RUN_ID": "job", "LOCAL_WORLD_SIZE": "1", "MASTER_ADDR": "a"}
SLURM = {"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0", "SLURM_JOB_START_TIME": "1700000000"}


def test_a_launch_has_one_name_for_all_its_ranks():
    launch = ranks._launch
    assert launch(ONE_MACHINE, 2, 1) == launch(ONE_MACHINE, 2, 1)
    assert launch(ONE_MACHINE, 2, 1) != launch(ONE_MACHINE, 2, 2)
    again = ONE_MACHINE | {"TORCHELASTIC_RESTART_COUNT": "1"}
    assert launch(ONE_MACHINE, 2, 1) != launch(again, 2, 1)
    # On several machines the parents differ.
    assert launch(TWO_MACHINES, 2, 1) == launch(TWO_MACHINES, 2, 2)
    assert launch(SLURM, 2, 1) == launch(SLURM, 2, 2) == (1700000000.0, "slurm/7/0")


def test_one_rank_has_an_id_of_its_own_and_several_share_one_per_attach():
    assert ranks.shared_run_id(1) is None
    one, two = ranks.shared_run_id(2), ranks.shared_run_id(2)
    assert one != two and one[:19] == two[:19]


def test_each_rank_writes_a_file_of_its_own(tmp_path):
    path = tmp_path / "a.trace"
    assert rank_path(path, 0) == path
    assert rank_path(path, 3).name == "a.rank3.trace"
