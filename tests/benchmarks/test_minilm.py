"""The pure parts of the benchmark on a pretrained model."""

from pathlib import Path

import pytest
from minilm import Answer, document, find_model, passages, table

CLEAN = Answer("clean", None, (), 20, "healthy", 0.1, None, None, (), 0, (), None)


def test_passages_are_whole():
    assert passages(["a b c d e", "f g", "h i j"], words=2) == ["a b", "c d", "f g", "h i"]


def test_a_folder_without_a_model_is_refused(tmp_path: Path):
    with pytest.raises(SystemExit, match=r"holds no model: name a folder with config\.json"):
        find_model(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    assert find_model(tmp_path) == tmp_path


def test_the_table_tells_right_from_wrong():
    flagged = Answer("odd", None, (), 20, "healthy", 0.4, None, None, (), 3, ("ffn",), None)
    right = Answer(
        "one", "score/normalization", (2,), 20, "faulty", 1.0, "score", "normalization", (2,), 0,
        (), 3,
    )  # fmt: skip
    wrong = Answer(
        "two", "ffn/regularization", (), 20, "faulty", 0.9, "ffn", "weight_scaling", (), 0, (), 7
    )
    missed = Answer("three", "qkv/dimension", (1,), 20, "healthy", 0.2, None, None, (), 0, (), None)
    text = table([CLEAN, flagged, right, wrong, missed])
    lines = {line.split("|")[1].strip(): line for line in text.splitlines() if "|" in line}
    assert lines["clean"].endswith("| – | – |") and "3 samples, as ffn" in lines["odd"]
    assert "| score | score/normalization | 2 | 2 |" in lines["one"]
    assert lines["one"].endswith("| 3 |")
    assert "| ffn | ffn/weight_scaling (is ffn/regularization) |" in lines["two"]
    assert lines["three"].endswith("| never |")
    assert text.endswith(
        "2 of 3 faulty runs are found, 2 with their category, 1 with their root cause; "
        "1 of 2 clean runs are never flagged."
    )
    page = document(text, 90, {"corpus_checksum": "abc"})
    assert text in page and "corpus abc" in page and "step 45" in page
