"""The README's catalogue is the code's."""

from __future__ import annotations

import pytest

from diagnoser.faults import OPERATORS
from diagnoser.faults.readme import README, catalogue, main, placed


def test_the_readme_holds_the_catalogue_of_today(capsys: pytest.CaptureFixture[str]) -> None:
    text = README.read_text(encoding="utf-8")
    assert placed(text) == text, "run `python -m diagnoser.faults.readme --write`"
    main([])
    assert capsys.readouterr().out.strip() in text


def test_every_operator_has_one_row_and_every_further_way_a_story() -> None:
    rows = [line.split("|")[2].strip() for line in catalogue().splitlines() if line[:2] == "| "]
    codes = [code.strip("*") for code in rows if code != "code"]
    assert sorted(codes) == sorted(OPERATORS)
    bold = {code.strip("*") for code in rows if code.startswith("**")}
    assert bold == {code for code, operator in OPERATORS.items() if operator.beyond}


def test_a_readme_without_markers_is_refused() -> None:
    with pytest.raises(ValueError, match="catalogue begin"):
        placed("# Faults\n")
