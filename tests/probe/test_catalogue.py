from __future__ import annotations

from pathlib import Path

from probe.catalogue import METRICS, as_markdown, columns_for
from probe.schema import Site


def test_a_metric_is_defined_once_per_node():
    pairs = [(metric.name, node) for metric in METRICS for node in metric.nodes]
    assert len(pairs) == len(set(pairs))


def test_every_metric_says_what_it_means_and_what_is_healthy():
    assert all(metric.meaning and metric.healthy for metric in METRICS)


def test_columns_are_every_metric_at_every_site_it_is_defined_for():
    columns = columns_for((Site("mask@0", "mask", 0), Site("training", "training")))
    assert {c.site for c in columns} == {"mask@0", "training"}
    assert "mask@0/padding_mass" in [c.key for c in columns]
    assert "training/padding_mass" not in [c.key for c in columns]


def test_the_committed_reference_is_the_generated_one():
    committed = Path(__file__).parents[2] / "docs" / "metrics.md"
    assert committed.read_text() == as_markdown(), "python -m probe.catalogue > docs/metrics.md"
