import numpy as np
import pytest

from diagnoser.diagnosis import Candidate, Diagnosis
from diagnoser.taxonomy import CATEGORY_NAMES
from monitor.verdict_history import VerdictHistory, row


def diagnosis(step, **fields):
    common = {"run": "r", "frames": step + 1, "last_step": step, "verdict": "healthy"}
    return Diagnosis(**(common | {"probability": 0.2} | fields))


def test_every_category_has_its_share_before_anything_is_flagged():
    shares = dict.fromkeys(CATEGORY_NAMES, 0.0) | {"masking": 0.75, "score": 0.25}
    found = row(diagnosis(0, categories=shares))
    told = dict(zip(CATEGORY_NAMES, found[2:], strict=True))
    assert told["masking"] == pytest.approx(0.15)
    assert told["score"] == pytest.approx(0.05)
    assert sum(found[2:]) == pytest.approx(0.2)


def test_candidates_stand_in_where_no_shares_are_told():
    ranking = (Candidate("score", "scaling", 0.3), Candidate("score", "normalization", 0.2))
    found = row(diagnosis(0, verdict="faulty", probability=1.0, ranking=ranking))
    assert found[2 + CATEGORY_NAMES.index("score")] == pytest.approx(0.5)


def test_an_unknown_probability_gives_no_category_any():
    found = row(diagnosis(0, probability=float("nan"), categories={"masking": 1.0}))
    assert np.isnan(found[0])
    assert found[2:] == [0.0] * len(CATEGORY_NAMES)


def test_bands_keep_the_most_alarming_and_leave_out_what_never_mattered():
    history = VerdictHistory(capacity=4)
    for step in range(16):
        share = 0.9 if step == 5 else 0.0
        history.add(diagnosis(step, probability=1.0, categories={"masking": share}))
    bands = history.bands()
    assert [curve.label for curve in bands.categories] == ["masking"]
    assert np.nanmax(bands.categories[0].high) == pytest.approx(0.9)
