from __future__ import annotations

import pytest

from monitor.cli import main

FACTORIES = """
import sys
sys.path.insert(0, {tests!r})
import family_models
import torch
from torch import nn


def gpt2():
    return family_models.make("gpt2")


def sequence_first():
    name = "torch encoder, pre-norm, sequence first"
    return family_models.make(name), family_models.batch(name)


def compiled():
    import torch
    return torch.compile(family_models.make("bert"), backend="eager")


def without_loss():
    return family_models.make("hand-written, SDPA")


class Broken(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(4, 4)

    def forward(self, x):
        raise RuntimeError("made on purpose")


broken = Broken()
number = 3
"""


@pytest.fixture
def doctor(tmp_path, monkeypatch, capsys):
    from pathlib import Path

    tests = str(Path(__file__).parents[1] / "probe")
    (tmp_path / "checked_models.py").write_text(FACTORIES.format(tests=tests))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))

    def run(name: str) -> tuple[int, str]:
        status = main(["doctor", "--model", f"checked_models:{name}"])
        shown = capsys.readouterr()
        return status, shown.out + shown.err

    return run


def _words(text: str) -> list[str]:
    return [" ".join(line.split()) for line in text.splitlines()]


def test_doctor_prints_the_path_of_every_part(doctor):
    status, text = doctor("gpt2")
    lines = _words(text)
    assert status == 0
    assert any(line.startswith("ok model GPT2LMHeadModel, decoder,") for line in lines)
    assert "ok fact tied weights: transformer.wte.weight = lm_head.weight" in lines
    assert not [line for line in lines if line.startswith("ok fact optimizer")]
    assert "ok heads 4, for keys and values 4, of dimension 8" in lines
    assert "ok norms order: pre" in lines and "ok positions learned" in lines
    assert "ok part attention transformer.h.*.attn" in lines
    assert "ok part norm_ffn transformer.h.*.ln_2" in lines
    assert any("score/input_error" in line and "inside the kernel" in line for line in lines)
    assert any(line.startswith("note part this model has no") and "gate" in line for line in lines)


def test_a_factory_may_give_the_batch_as_well(doctor):
    status, text = doctor("sequence_first")
    lines = _words(text)
    assert status == 0 and "note forward" not in text
    assert "ok part norm_final encoder.norm" in lines
    assert "ok part packed encoder.layers.*.self_attn" in lines


def test_what_a_model_offers_is_told(doctor):
    decoder, encoder, fused = (
        _words(doctor(name)[1]) for name in ("gpt2", "compiled", "sequence_first")
    )
    counts = next(line for line in decoder if line.startswith("ok measured"))
    metrics, contracts = (int(word) for word in counts.split() if word.isdigit())
    assert metrics > contracts > 30
    assert "ok generation cached decoding is compared with fresh forwards" in decoder
    assert not any(line.startswith("note compiled") for line in decoder)
    assert any(line.startswith("note compiled the model runs as a graph") for line in encoder)
    assert not any("generation" in line for line in encoder)
    assert any(line.startswith("note evaluation torch runs these layers") for line in fused)


def test_a_loss_that_needs_labels_does_not_keep_it_from_looking(doctor):
    status, text = doctor("without_loss")
    assert status == 0
    assert "did not run to its end" in text and "return (model, batch)" in text
    assert "ok norms order: pre" in _words(text)


def test_a_model_without_blocks_is_a_failure(doctor):
    status, text = doctor("broken")
    assert status == 1
    assert "made on purpose" in text and "FAIL part" in text and "anatomy={" in text


@pytest.mark.parametrize(
    ("name", "said"), [("nothing_here", "nothing_here"), ("number", "not a torch module")]
)
def test_a_wrong_factory_is_wrong_usage(doctor, name, said):
    status, text = doctor(name)
    assert status == 64 and said in text


def test_the_form_is_told(capsys):
    assert main(["doctor", "--model", "no_colon"]) == 64
    assert "MODULE:FACTORY" in capsys.readouterr().err
