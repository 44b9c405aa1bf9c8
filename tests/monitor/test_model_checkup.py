from __future__ import annotations

import pytest

from monitor.cli import main

FAMILIES = (
    "electra", "albert", "deberta", "modernbert", "vit", "gpt_neo", "gpt_neox", "opt", "bloom",
    "falcon", "qwen2", "gemma2", "gemma3", "phi3", "olmo2", "mixtral", "bart", "whisper", "llava",
    "qwen2_vl", "minGPT", "torchtune", "torchtitan",
)  # fmt: skip
FACTORIES = """
import sys
sys.path.insert(0, {tests!r})
import family_models
import more_models
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


def of(family, given=True):
    batch = more_models.MORE[family].batch()
    batch = {{k: v for k, v in batch.items() if "tokens" not in batch or k != "targets"}}
    return (more_models.make(family), batch) if given else more_models.make(family)


def pictures_missing():
    return of("vit", given=False)


def mamba():
    import transformers as hf
    return hf.MambaForCausalLM(
        hf.MambaConfig(vocab_size=100, hidden_size=32, num_hidden_layers=3, state_size=8)
    )


class Broken(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(4, 4)

    def forward(self, x):
        raise RuntimeError("made on purpose")


broken = Broken()
for name in {families!r}:
    globals()[name] = lambda name=name: of(name)
number = 3
"""


@pytest.fixture
def doctor(tmp_path, monkeypatch, capsys):
    from pathlib import Path

    tests = str(Path(__file__).parents[1] / "probe")
    text = FACTORIES.format(tests=tests, families=FAMILIES)
    (tmp_path / "checked_models.py").write_text(text)
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


def test_a_model_of_images_needs_a_batch_and_no_table_of_tokens(doctor):
    status, text = doctor("pictures_missing")
    lines = _words(text)
    assert status == 0 and "FAIL" not in text
    assert any(line.startswith("note part no token_embedding: it has no table") for line in lines)
    assert any(line.startswith("note forward did not run") and "(model, batch)" in line
               for line in lines)  # fmt: skip
    status, lines = 0, _words(doctor("vit")[1])
    assert not any(line.startswith("note forward") for line in lines)
    assert any(line.startswith("ok measured") for line in lines)


def test_a_state_space_model_offers_what_there_is(doctor):
    status, text = doctor("mamba")
    lines = _words(text)
    assert status == 0 and "FAIL" not in text and "note forward" not in lines
    assert any(line.startswith("note part no attention: tokens are mixed") for line in lines)
    assert any(line.startswith("ok measured") for line in lines)


def _offers(lines: list[str]) -> None:
    assert not any(line.startswith(("FAIL", "note forward")) for line in lines)
    (counts,) = (line for line in lines if line.startswith("ok measured"))
    assert int(counts.split()[2]) > 40
    told = [line for line in lines if line.startswith("note unmeasured")]
    assert told and all(": " in line for line in told)


@pytest.mark.parametrize("family", ["modernbert", "gemma3", "whisper"])
def test_any_family_tells_what_it_offers(doctor, family):
    _offers(_words(doctor(family)[1]))


@pytest.mark.matrix
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_tells_what_it_offers(doctor, family):
    _offers(_words(doctor(family)[1]))


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
