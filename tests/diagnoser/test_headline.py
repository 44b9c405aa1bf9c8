"""The figures that the first page tells, against the answers that are committed."""

from pathlib import Path

import pytest

from diagnoser import evaluate, predictions
from diagnoser.figures import figures

FIRST_PAGE = Path(__file__).parents[2] / "README.md"


@pytest.mark.parametrize(
    ("view", "left_out"),
    [("pairs", "its model-task pair"), ("families", "its model family with its kin")],
)
def test_the_first_page_tells_what_was_measured(view, left_out):
    found = figures(predictions.load(evaluate.PREDICTIONS).all(view))
    cells = [
        left_out,
        f"{found.detection.f1:.3f}",
        f"{found.category_f1:.3f}",
        f"{found.cause_f1:.3f}",
        f"{found.layer_right / found.layer_runs:.0%}".replace("%", " %"),
        f"{found.clean_flagged} of {found.clean}",
    ]
    text = FIRST_PAGE.read_text(encoding="utf-8")
    assert f"| {' | '.join(cells)} |" in text
    assert f"Asked about {found.runs} recorded runs of" in text
