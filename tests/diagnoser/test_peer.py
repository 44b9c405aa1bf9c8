"""Our figures beside those that DEFault++ reports of itself."""

from dataclasses import fields

from diagnoser.peer import CAUSES, beside
from diagnoser.replay import Prediction
from diagnoser.taxonomy import ROOT_CAUSE_KEYS


def answer(family: str, truth: str | None, told: str | None) -> Prediction:
    """Of a run of a family, what is true and what was told; None: healthy."""
    values = {field.name: None for field in fields(Prediction)}
    category, cause = told.split("/") if told else (None, None)
    values |= {"id": "x", "family": family, "truth": truth, "true_layers": (), "probability": 1.0}
    values |= {"faulty": told is not None, "category": category, "root_cause": cause}
    return Prediction(**values | {"ever_flagged": False, "delay": None})


def test_encoders_and_decoders_stand_apart_beside_what_is_published():
    qkv = [key for key in ROOT_CAUSE_KEYS if key.startswith("qkv/")][:2]
    asked = [
        answer("roberta", qkv[0], qkv[0]),
        answer("roberta", qkv[1], None),
        answer("bert", None, None),
        answer("llama", qkv[0], qkv[0]),
        answer("llama", "kv_cache/memory_layout", "kv_cache/memory_layout"),
        answer("t5", None, qkv[0]),
    ]
    lines = beside(asked)
    assert "| runs (faulty / clean) | 2 / 1 | | 2 / 0 | |" in lines
    assert "| detection F1 | 0.667 | 0.826 | 1.000 | 0.909 |" in lines
    assert "| category macro-F1 | 0.667 | 0.850 | 1.000 | 0.868 |" in lines
    assert "| root cause macro-F1 | 0.500 | 0.851 | 1.000 | 0.867 |" in lines
    assert "| … root causes of qkv | 0.500 | 0.765 | 1.000 | 0.646 |" in lines
    assert "| … root causes of kv_cache | – | – | 1.000 | 0.758 |" in lines
    assert set(CAUSES) <= {key.split("/")[0] for key in ROOT_CAUSE_KEYS}
