"""Text, vocabulary, tasks, models: real, deterministic, well-formed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from diagnoser.corpus import FIRST_UNSEEN_SEED, CorpusError, text
from diagnoser.corpus.recipe import FAMILIES, ROTARY, Recipe, Size, demo_recipe, draw_recipe
from diagnoser.corpus.tasks import IGNORED, TASKS, Batches, pairs
from diagnoser.corpus.vocabulary import BYTES, MASK, PAD, SPECIALS, Vocabulary

SMALL = Size(layers=2, width=32, heads=2, kv_heads=2, vocabulary=512)


def recipe(family: str = "gpt2", task: str = "lm_source", **changes) -> Recipe:
    return replace(
        Recipe(family=family, task=task, size=SMALL, seed=5, batch_size=4, length=32), **changes
    )


def decode(ids: np.ndarray, vocabulary: Vocabulary) -> bytes:
    pieces = {v[0]: k.encode() for k, v in vocabulary._ids.items() if len(v) == 1}
    return b"".join(pieces.get(int(i)) or bytes([int(i) - SPECIALS]) for i in ids)


def test_text_is_the_library_s_own_code_and_prose():
    found = {module.name: module for module in text.modules()}
    assert "class HelpFormatter" in found["argparse"].code
    assert "Command-line parsing library" in found["argparse"].prose
    assert "Command-line parsing library" not in found["argparse"].code
    assert [m.name for m in text.modules()] == list(found)


def test_a_python_without_sources_is_refused_with_advice(tmp_path, monkeypatch):
    monkeypatch.setattr(text.sysconfig, "get_path", lambda name: str(tmp_path))
    text.modules.cache_clear()
    try:
        with pytest.raises(CorpusError, match=r"use a Python installed with its \.py files"):
            text.modules()
    finally:
        text.modules.cache_clear()


@pytest.mark.parametrize("size", [260, 512, 2048])
def test_encoding_loses_nothing(size):
    vocabulary = Vocabulary(size)
    sample = "def naïve(self, x):\n    return x ** 2  # €\n\tvery_rare_identifier_zzz = 17\n"
    ids = vocabulary.encode(sample)
    assert ids.min() >= SPECIALS and ids.max() < size
    assert decode(ids, vocabulary) == sample.encode()
    assert len(ids) <= len(sample.encode())


def test_frequent_pieces_are_single_ids():
    ids = Vocabulary(512).encode(" self")
    assert ids.shape == (1,) and ids[0] >= SPECIALS + BYTES


@pytest.mark.parametrize(("family", "task"), pairs())
def test_batches_repeat_by_seed_and_are_well_formed(family, task):
    one, two = Batches(recipe(family, task)), Batches(recipe(family, task))
    other = Batches(recipe(family, task, seed=6))
    batches = [next(one) for _ in range(3)]
    for batch in batches:
        same = next(two)
        assert all(torch.equal(batch[key], same[key]) for key in batch)
        ids, mask, labels = batch["input_ids"], batch["attention_mask"], batch["labels"]
        assert ids.shape == mask.shape and ids.min() >= 0 and ids.max() < SMALL.vocabulary
        assert ((ids == PAD) == (mask == 0)).all()
        if TASKS[task].head == "classes":
            assert labels.shape == (4,) and labels.max() < TASKS[task].classes
        else:
            assert (labels[mask == 0] == IGNORED).all()
            assert (labels != IGNORED).any()
    assert any((batch["attention_mask"] == 0).any() for batch in batches), "never any padding"
    assert not torch.equal(next(other)["input_ids"][:, :8], batches[0]["input_ids"][:, :8])


def test_labels_of_language_models_are_the_inputs():
    batch = next(Batches(recipe()))
    real = batch["attention_mask"] == 1
    assert torch.equal(batch["labels"][real], batch["input_ids"][real])


def test_masked_tokens_are_mostly_hidden():
    batch = next(Batches(recipe("bert", "mlm_source", batch_size=64)))
    asked = batch["labels"] != IGNORED
    hidden = (batch["input_ids"] == MASK)[asked].float().mean()
    assert 0.7 < hidden < 0.9
    assert 0.1 < asked.float().sum() / batch["attention_mask"].sum() < 0.2
    untouched = ~asked
    assert not (batch["input_ids"] == MASK)[untouched].any()


@pytest.mark.parametrize(("family", "task"), [("gpt2", "copy"), ("bert", "restore")])
def test_synthetic_tasks_can_be_solved_from_the_other_half(family, task):
    batch = next(Batches(recipe(family, task, padding="none")))
    ids, labels = batch["input_ids"], batch["labels"]
    half = (ids.shape[1] - 2) // 2
    asked = labels != IGNORED
    assert not asked[:, : half + 2].any()
    shifted = torch.roll(ids, half + 1, dims=1)
    assert torch.equal(shifted[asked], labels[asked])


def test_padding_goes_where_the_recipe_says():
    left = next(Batches(recipe("llama", padding="left", batch_size=16)))
    right = next(Batches(recipe("llama", padding="right", batch_size=16)))
    full = next(Batches(recipe("llama", padding="none")))
    assert (left["attention_mask"].diff() >= 0).all() and (left["attention_mask"] == 0).any()
    assert (right["attention_mask"].diff() <= 0).all() and (right["attention_mask"] == 0).any()
    assert (full["attention_mask"] == 1).all()
    assert "attention_mask" not in next(Batches(recipe("llama", padding="no_mask")))


def test_a_fork_yields_the_same_batches():
    batches = Batches(recipe())
    next(batches)
    twin = batches.fork()
    assert torch.equal(next(batches)["input_ids"], next(twin)["input_ids"])


def test_a_task_of_another_family_is_refused():
    with pytest.raises(ValueError, match="mlm_source is no task for gpt2"):
        Batches(recipe("gpt2", "mlm_source"))


@pytest.mark.parametrize("family", FAMILIES)
def test_drawn_recipes_stay_within_convention(family):
    rng = np.random.default_rng(0)
    task = next(task for member, task in pairs() if member == family)
    drawn = [draw_recipe(family, task, rng) for _ in range(300)]
    assert all(r.seed < FIRST_UNSEEN_SEED for r in drawn)
    assert {r.size.layers for r in drawn} == {2, 3, 4, 5, 6}
    assert all(r.size.width % r.size.heads == 0 for r in drawn)
    assert all(r.size.heads % r.size.kv_heads == 0 for r in drawn)
    assert any(r.size.kv_heads < r.size.heads for r in drawn) == (family in ROTARY)
    assert any(r.padding == "left" for r in drawn) == (family in ROTARY)


def test_the_demo_never_uses_a_seed_of_the_corpus():
    assert demo_recipe("gpt2", FIRST_UNSEEN_SEED).seed == FIRST_UNSEEN_SEED
    with pytest.raises(ValueError, match="belong to the corpus"):
        demo_recipe("gpt2", FIRST_UNSEEN_SEED - 1)
