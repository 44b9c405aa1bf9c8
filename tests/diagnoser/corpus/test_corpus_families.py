"""Every family of the corpus under the probe: healthy runs, in which no contract fires."""

from __future__ import annotations

import pytest

from diagnoser.corpus.execute import record
from diagnoser.corpus.families import FAMILIES
from diagnoser.corpus.plan import Branch, Scenario
from diagnoser.corpus.recipe import Recipe, Size
from diagnoser.corpus.tasks import pairs
from diagnoser.corpus.training import Training
from diagnoser.extract import extract

FRAMES = 8
CASES = [
    pytest.param(
        family,
        padding,
        marks=() if (family, padding) == ("gpt_neo", "right") else pytest.mark.matrix,
    )
    for family, entry in FAMILIES.items()
    for padding in dict.fromkeys(entry.paddings)
]


@pytest.mark.parametrize(("family", "padding"), CASES)
def test_nothing_fires_in_a_healthy_run(family, padding, tmp_path):
    entry = FAMILIES[family]
    task = next(task for member, task in pairs() if member == family)
    size = Size(4, 32, 4, 2 if entry.grouped else 4, 512)
    # Answers are short, and a rate of dropout is read from a thousand elements or it is noise.
    length = 96 if entry.kind == "coded" else 32
    recipe = Recipe(
        family, task, size, seed=11, batch_size=6, length=length, padding=padding, dropout=0.3
    )
    scenario = Scenario(0, recipe, 1, 0, 0, FRAMES + 1, (Branch("clean"),))
    record(Training(recipe), scenario, tmp_path / "clean.trace")
    found = extract(tmp_path / "clean.trace")
    assert len(found.steps) == FRAMES + 1
    assert not found.firings and not found.any_fired.any(), found.firings
    kinds = {kind for kind, values in found.nodes.items() if values.shape[1]}
    assert {"attention", "qkv", "ffn", "output", "training"} <= kinds
