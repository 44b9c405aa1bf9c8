"""The shipped weights on the final hold-out, from what is committed alone."""

import pytest

from diagnoser import evaluate, predictions, selfcheck, table, weights


@pytest.mark.skipif(
    not table.is_table(selfcheck.FINAL), reason="the final hold-out's feature table is not here"
)
def test_the_shipped_weights_answer_as_the_tables_say():
    kept = predictions.load(evaluate.PREDICTIONS)
    trained, digest = weights.load(), weights.digest()
    found = selfcheck.score_final(kept, selfcheck.FINAL, trained, digest)
    print(found.text())
    assert found.kept, "the answers kept are of other weights: evaluate --final DIR"
    assert found.alike >= selfcheck.ALIKE
