import csv
from pathlib import Path

import pytest

import diagnoser
from diagnoser import taxonomy
from probe.catalogue import METRICS

DATA = Path(diagnoser.__file__).parent / "data"


def test_the_taxonomy_has_its_categories_root_causes_and_operators():
    assert len(taxonomy.categories()) == 12
    assert len(taxonomy.root_causes()) == 45
    assert len(taxonomy.operators()) == 52


def test_every_operator_injects_a_described_root_cause_of_its_category():
    for operator in taxonomy.operators().values():
        assert f"{operator.category}/{operator.root_cause}" in taxonomy.root_causes()


def test_every_root_cause_has_an_operator_and_full_texts():
    injected = {f"{o.category}/{o.root_cause}" for o in taxonomy.operators().values()}
    assert injected == set(taxonomy.root_causes())
    for cause in taxonomy.root_causes().values():
        texts = (cause.title, cause.meaning, cause.symptoms, cause.check, cause.repair)
        assert all(len(text) > 8 for text in texts), cause.key


def test_texts_are_not_copied_between_root_causes():
    repairs = [cause.repair for cause in taxonomy.root_causes().values()]
    assert len(set(repairs)) == len(repairs)


def test_a_name_owned_by_two_categories_stays_apart():
    both = [cause for cause in taxonomy.root_causes().values() if cause.name == "regularization"]
    assert {cause.category for cause in both} == {"ffn", "layernorm"}


def test_categories_name_nodes_that_the_probe_measures():
    known = {node for metric in METRICS for node in metric.nodes}
    for category in taxonomy.categories().values():
        assert category.nodes
        assert set(category.nodes) <= known


def test_an_unknown_category_is_named_in_the_error():
    with pytest.raises(KeyError, match="nonsense"):
        taxonomy.causes_of("nonsense")


def test_operator_parameters_are_split():
    assert taxonomy.operators()["CTR"].values == ("8", "16", "32")


def test_data_files_have_no_extra_columns():
    for name in ("root_causes.csv", "categories.csv", "taxonomy.csv", "fpg.csv"):
        with (DATA / name).open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                assert None not in row, (name, row)
