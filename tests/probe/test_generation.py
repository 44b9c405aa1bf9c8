"""``generate()`` on every family: nothing changes, nothing fires, and what is not seen is told."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import transformers as hf
from family_grid import over
from more_models import MORE, make
from test_following import attach
from tiny_models import Seen
from training_loops import kinds, scalar

import probe
from probe.schema import Event
from probe.trace import load

NEW = 4
DECODERS = (
    "gpt_neo", "gpt_neox", "opt", "bloom", "falcon", "qwen2", "gemma2", "gemma3", "phi3", "olmo2",
    "mixtral",
)  # fmt: skip
BY_HAND = ("gpt_neo", "bloom", "gemma2")
"""Their softmax does not run inside a kernel."""
SHORT = ("gpt_neo", "opt", "bloom", "gemma2")


def prompts(family: str) -> dict[str, torch.Tensor]:
    torch.manual_seed(3)
    if family in ("llava", "qwen2_vl"):
        given = MORE[family].batch()
        del given["labels"]
        return given
    ids = torch.randint(5, 95, (3, 11))
    mask = torch.ones_like(ids)
    at = slice(7, None) if family == "bart" else slice(None, 4)
    mask[1, at], ids[1, at] = 0, 1 if family == "bart" else 0
    if family not in ("bart", "whisper"):
        return {"input_ids": ids, "attention_mask": mask}
    # The decoder begins with several tokens, as Whisper's does with language and task.
    written = {"decoder_input_ids": torch.cat([torch.full((3, 1), 2), ids[:, :3].flip(1)], dim=1)}
    if family == "whisper":
        return {"input_features": torch.randn(3, 8, 40)} | written
    return {"input_ids": ids, "attention_mask": mask} | written


def generate(model, family: str, **options):
    torch.manual_seed(4)
    chosen = {"max_new_tokens": NEW, "do_sample": True, "pad_token_id": 0, "eos_token_id": None}
    return model.generate(**prompts(family), **chosen | options), torch.get_rng_state()


def watched(family: str, path, **options) -> list:
    """The records of a watched generation, which is the same as one that nobody watches."""
    plain = generate(make(family).eval(), family, **options)
    model = make(family).eval()
    with attach(model, path):
        found = generate(model, family, **options)
    assert all(map(torch.equal, plain, found))
    records = load(path)
    assert "probe_off" not in {r.kind for r in records if isinstance(r, Event)}
    return records


def notes(records) -> list[str]:
    return [r.text for r in records if isinstance(r, Event) and r.kind == "note"]


def _compared(family: str, path) -> None:
    assert notes(watched(family, path)) == []
    seen = Seen(path)
    assert len(seen.frames) == NEW and over(seen) == {}
    for key in ("key_error", "value_error", "last_error", "logits_error", "length_gap"):
        assert np.isfinite(seen[f"kv_cache@1/{key}"][1:]).all(), key
    for key in ("leaked", "hidden"):
        assert np.isfinite(seen[f"mask@1/{key}"]).all(), key


@pytest.mark.works_with("Generation, cached decoding compared with fresh forwards")
@pytest.mark.parametrize("family", SHORT)
def test_cached_decoding_is_compared(family, tmp_path):
    _compared(family, tmp_path / "t")


@pytest.mark.matrix
@pytest.mark.works_with("Generation, cached decoding compared with fresh forwards")
@pytest.mark.parametrize("family", [name for name in DECODERS if name not in SHORT])
def test_cached_decoding_of_every_decoder_is_compared(family, tmp_path):
    _compared(family, tmp_path / "t")


@pytest.mark.parametrize("family", ["gpt_neo", "bloom"])
def test_a_stale_cache_is_seen_where_softmax_runs_by_hand(family, tmp_path):
    """Weights change under a cache that is kept, as a prefix's is while a model trains."""
    model = make(family).eval()
    ids = torch.randint(5, 95, (3, 9), generator=torch.Generator().manual_seed(2))
    layer = model.transformer.h[1]
    weight = (
        layer.attn.attention.k_proj if family == "gpt_neo" else layer.self_attention.query_key_value
    ).weight
    with torch.no_grad(), attach(model, tmp_path / "t"):
        out = model(input_ids=ids, use_cache=True)
        weight.mul_(1.5)
        for at in range(2):
            new = out.logits[:, -1:].argmax(dim=-1)
            mask = torch.ones(3, 10 + at, dtype=torch.long)
            out = model(
                new, attention_mask=mask, past_key_values=out.past_key_values, use_cache=True
            )
    seen = Seen(tmp_path / "t")
    assert (seen["kv_cache@1/key_error"][1:] > 0.05).all()
    assert (seen["kv_cache@0/key_error"][1:] < 1e-5).all()


@pytest.mark.parametrize("width", [7, 9])
def test_a_mask_that_is_off_by_one_at_the_windows_edge_is_seen(width, tmp_path, monkeypatch):
    """The cache holds everything; the window, of 8, is left to the mask."""
    from family_models import make as made
    from transformers.models.mistral import modeling_mistral

    model = made("mistral").eval()
    own = modeling_mistral.create_sliding_window_causal_mask

    def other(*args, config, **options):
        config = copy.copy(config)
        config.sliding_window = width
        return own(*args, config=config, **options)

    monkeypatch.setattr(modeling_mistral, "create_sliding_window_causal_mask", other)
    cache = hf.DynamicCache()
    ids = torch.randint(5, 95, (3, 14), generator=torch.Generator().manual_seed(2))
    with torch.no_grad(), attach(model, tmp_path / "t"):
        model(ids[:, :11], past_key_values=cache, use_cache=True)
        for at in range(11, 14):
            model(
                ids[:, at : at + 1], attention_mask=torch.ones(3, at + 1, dtype=torch.long),
                past_key_values=cache, use_cache=True,
            )  # fmt: skip
    seen = Seen(tmp_path / "t")
    wrong, right = ("hidden", "leaked") if width == 7 else ("leaked", "hidden")
    assert (seen[f"mask@1/{wrong}"] > 0.02).all() and (seen[f"mask@1/{right}"] == 0).all()
    assert (seen["kv_cache@1/length_gap"][1:] == 0).all()


@pytest.mark.works_with("Without training", "generation with cross-attention (prompts only)")
@pytest.mark.parametrize("family", ["bart", "whisper"])
def test_with_cross_attention_only_the_beginning_is_looked_at(family, tmp_path):
    watched(family, tmp_path / "t")
    seen = Seen(tmp_path / "t")
    assert [frame.step for frame in seen.frames] == [0] and over(seen) == {}
    assert "encoder-decoder" in seen.header.absent["decoder.kv_cache/key_error"]


@pytest.mark.works_with("Without training", "generation from images and text (prompts only)")
@pytest.mark.parametrize("family", ["llava", "qwen2_vl"])
def test_with_images_only_the_beginning_is_looked_at(family, tmp_path):
    watched(family, tmp_path / "t")
    seen = Seen(tmp_path / "t")
    assert [frame.step for frame in seen.frames] == [0] and over(seen) == {}
    told = [text for key, text in seen.header.absent.items() if key.startswith("kv_cache")]
    assert any("images or sound" in text for text in told)


@pytest.mark.works_with("Without training", "static caches (told, not looked into)")
def test_what_runs_with_a_static_cache_is_told_and_not_looked_into(tmp_path):
    records = watched("gemma2", tmp_path / "t", cache_implementation="static")
    assert len(notes(records)) == 1 and "StaticSlidingWindowLayer" in notes(records)[0]
    assert not [r for r in records if type(r).__name__ == "Frame"]


def test_a_cache_in_another_order_is_told(tmp_path):
    records = watched("qwen2", tmp_path / "t", num_beams=3)
    assert len(notes(records)) == 1 and "beam search" in notes(records)[0]


def test_one_token_is_no_sequence(tmp_path):
    """Without a prompt the first forward has one token only: nothing of a row can be told."""
    model = make("opt").eval()
    with attach(model, tmp_path / "t"):
        model.generate(
            input_ids=torch.full((2, 1), 7), use_cache=False, max_new_tokens=3, eos_token_id=None
        )
    seen = Seen(tmp_path / "t")
    assert [frame.step for frame in seen.frames] == [1, 2] and over(seen) == {}
    assert notes(seen.records) == ["forwards of one token each are not looked into"]


# -- dropout left on -------------------------------------------------------------------------------


@pytest.mark.parametrize("forgotten", [True, False])
def test_an_evaluation_with_dropout_in_a_training_is_told_once(forgotten, tmp_path):
    from family_models import batch as text
    from family_models import make as made

    model = made("bert", 0.1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    options = {"endpoint": False, "every": 1, "budget": None, "trace": tmp_path / "t"}
    with probe.attach(model, optimizer, **options):
        for _ in range(3):
            model(**text("bert")).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            model.train(forgotten)
            with torch.no_grad():
                model(**text("bert"))
            model.train()
    seen = Seen(tmp_path / "t")
    assert [event.step for event in kinds(seen, "dropout_on")] == [1] * forgotten
    assert over(seen) == {} and len(scalar(seen, "loss")) == 3
