"""The README's catalogue is the code's, its other tables those of the kept measurements."""

from __future__ import annotations

import pytest

from diagnoser.faults import OPERATORS
from diagnoser.faults.observed import (
    mutation_scores,
    observability,
    read_kills,
    read_observability,
    unobservable,
)
from diagnoser.faults.readme import README, catalogue, main, placed, sections
from diagnoser.kill_test import Kills, Verdict
from diagnoser.observability import Group, Metric, Observability, Seen
from diagnoser.taxonomy import ROOT_CAUSE_KEYS


def test_the_readme_holds_the_tables_of_today(capsys: pytest.CaptureFixture[str]) -> None:
    text = README.read_text(encoding="utf-8")
    assert placed(text) == text, "run `python -m diagnoser.faults.readme --write`"
    main([])
    printed = capsys.readouterr().out
    assert len(sections()) == 3
    assert all(section in printed and section in text for section in sections().values())


def test_every_operator_has_one_row_and_every_further_way_a_story() -> None:
    rows = [line.split("|")[2].strip() for line in catalogue().splitlines() if line[:2] == "| "]
    codes = [code.strip("*") for code in rows if code != "code"]
    assert sorted(codes) == sorted(OPERATORS)
    bold = {code.strip("*") for code in rows if code.startswith("**")}
    assert bold == {code for code, operator in OPERATORS.items() if operator.beyond}


def test_a_readme_without_markers_is_refused() -> None:
    with pytest.raises(ValueError, match="catalogue begin"):
        placed("# Faults\n")


def test_the_kept_measurements_are_of_known_faults() -> None:
    found, kills = read_observability(), read_kills()
    assert found.runs == sum(group.runs for group in found.causes)
    assert found.runs == sum(group.runs for group in found.operators)
    for group in (*found.causes, *found.operators):
        assert group.cause in ROOT_CAUSE_KEYS
        assert max(group.fired, group.moved) <= group.seen <= group.runs
        assert group.runs == sum(seen.runs for seen in group.families.values())
    named = [group.operator for group in found.operators] + [v.operator for v in kills.verdicts]
    assert set(named) <= set(OPERATORS)


def group(**more: object) -> Group:
    found = {
        "cause": "qkv/dimension",
        "runs": 4,
        "fired": 1,
        "moved": 1,
        "seen": 1,
        "metrics": (Metric("qkv/head_count", 3.0, "↓", 0.6), Metric("ffn/x", None, "gone", 0.6)),
        "families": {"bert": Seen(1, 1), "opt": Seen(3, 0)},
    }
    return Group(**{**found, **more})  # type: ignore[arg-type]


def verdict(**more: object) -> Verdict:
    found = {
        "cause": "qkv/dimension",
        "operator": "QHD",
        "family": "bert",
        "kind": "encoder",
        "value": None,
        "layers": (0,),
        "seeds": 5,
        "training_change": 0.0,
        "training_p": 1.0,
        "validation_change": 0.5,
        "validation_p": 1 / 32,
    }
    return Verdict(**{**found, **more})  # type: ignore[arg-type]


def test_the_tables_say_what_was_seen_where_and_what_hurts() -> None:
    found = Observability(
        corpus="c",
        runs=4,
        healthy=9,
        healthy_fired=0,
        healthy_seen=1,
        threshold=2.5,
        causes=(group(),),
        operators=(group(operator="QHD", severities={"2": Seen(4, 1)}),),
    )
    latent = verdict(family="gpt2", kind="decoder", validation_p=0.5)
    kills = Kills(design="two models", verdicts=(verdict(), latent))
    lines = observability(found, kills).splitlines()
    told = "4 | 25 % | 75 % | 25 % | bert | "
    moved = "qkv/head_count ↓3; ffn/x gone | opt 3 of 3 |"
    assert f"| qkv/dimension | {told}{moved}" in lines
    assert f"| QHD | {told}2 1/4 | {moved}" in lines
    assert "- qkv/dimension: 3 of 4 runs show nothing." in lines
    assert "- QHD (qkv/dimension): 3 of 4 runs show nothing." in lines
    only_latent = Kills(design="one model", verdicts=(latent,))
    assert "| 25 % | latent | qkv/head_count" in observability(found, only_latent)
    scores = mutation_scores(kills).splitlines()
    assert "| qkv | 1 of 1 (100 %) | 0 of 1 (0 %) |" in scores
    assert "| **all** | 1 of 1 (100 %) | 0 of 1 (0 %) |" in scores
    assert "| masking |  |  |" in scores and scores[-1].endswith("| 81.7 % | 55.1 % |")


def test_half_of_the_runs_is_enough_to_be_observable() -> None:
    assert unobservable([group(seen=2), group(seen=1)]) == [group(seen=1)]
