"""Text, vocabulary, tasks, models: real, deterministic, well-formed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from diagnoser.corpus import FIRST_UNSEEN_SEED, CorpusError, families, holdout, symbols, text
from diagnoser.corpus.images import DIRECTIONS, side, striped
from diagnoser.corpus.recipe import (
    FAMILIES,
    ROTARY,
    Recipe,
    Size,
    demo_recipe,
    draw_largest,
    draw_recipe,
    draw_size,
)
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


OF_TEXT = [pair for pair in pairs() if families.FAMILIES[pair[0]].kind != "vision"]


@pytest.mark.parametrize(("family", "task"), pairs())
def test_batches_repeat_by_seed(family, task):
    one, two = Batches(recipe(family, task)), Batches(recipe(family, task))
    other = Batches(recipe(family, task, seed=6))
    for _ in range(3):
        batch, same = next(one), next(two)
        assert all(torch.equal(batch[key], same[key]) for key in batch)
    first, unlike = next(one), next(other)
    key = "pixel_values" if "pixel_values" in first else "input_ids"
    assert not torch.equal(first[key][..., :8], unlike[key][..., :8])


@pytest.mark.parametrize(("family", "task"), OF_TEXT)
def test_batches_are_well_formed(family, task):
    batches = Batches(recipe(family, task))
    found = [next(batches) for _ in range(3)]
    head = TASKS[task].head(family)
    for batch in found:
        ids, mask, labels = batch["input_ids"], batch["attention_mask"], batch["labels"]
        assert ids.shape == mask.shape and ids.min() >= 0 and ids.max() < SMALL.vocabulary
        assert ((ids == PAD) == (mask == 0)).all()
        if head == "classes":
            assert labels.shape == (4,) and 0 <= labels.min() <= labels.max() < TASKS[task].classes
        elif head == "seq2seq":
            assert labels.shape[0] == 4 and (labels != IGNORED).any(dim=1).all()
        else:
            assert (labels[mask == 0] == IGNORED).all()
            assert (labels != IGNORED).any()
    assert any((batch["attention_mask"] == 0).any() for batch in found), "never any padding"
    full = next(Batches(recipe(family, task, padding="none", length=24)))
    assert full["input_ids"].shape[1] <= 24, "longer than the model has positions"


def test_images_show_their_class():
    batch = next(Batches(recipe("vit", "patches", batch_size=32)))
    assert batch["pixel_values"].shape == (32, 3, side(32), side(32))
    assert set(batch["labels"].tolist()) == set(range(DIRECTIONS))
    rng = np.random.default_rng(0)
    found: dict[int, list[tuple[float, float]]] = {}
    for _ in range(80):
        image, direction = striped(64, rng)
        down, across = (float(np.abs(np.diff(image, axis=axis)).mean()) for axis in (1, 2))
        found.setdefault(direction, []).append((down, across))
    down, across = np.mean(found[0], axis=0)
    assert down > 1.1 * across  # stripes one above the other
    down, across = np.mean(found[2], axis=0)
    assert across > 1.1 * down


def test_every_kind_of_task_is_there():
    trained = [name for name in TASKS if name not in holdout.TASKS]
    assert len(trained) >= 8 and len(holdout.TASKS) == 2 and set(holdout.TASKS) <= set(TASKS)
    assert {TASKS[task].head(family) for family, task in pairs()} == {
        "lm", "mlm", "classes", "seq2seq",
    }  # fmt: skip


def test_answers_are_right():
    rng = np.random.default_rng(0)
    for length in (12, 30, 62):
        given, ordered = symbols.sort(length, 512, rng)
        assert ordered.tolist() == sorted(given.tolist())
        shown, values = symbols.recall(length, 512, rng)
        count = len(values)
        table = dict(zip(shown[: 2 * count : 2], shown[1 : 2 * count : 2], strict=True))
        assert len(table) == count and [table[key] for key in shown[-count:]] == values.tolist()
        pairs_, sums = symbols.modular(length, 512, rng)
        numbers = (pairs_ - SPECIALS).reshape(-1, 2).sum(axis=1)
        assert ((sums - SPECIALS) == numbers % symbols.MODULUS).all()
        row, winner = symbols.majority(length, 512, rng)
        counts = np.bincount(row - SPECIALS, minlength=symbols.CANDIDATES)
        assert counts[winner] == counts.max()
        row, odd = symbols.parity(length, 512, rng)
        assert (row == row[0]).sum() % 2 == odd


def test_what_is_asked_of_a_question_is_its_answer():
    row = next(Batches(recipe("gpt2", "sort", padding="none")))
    asked = row["labels"] != IGNORED
    assert torch.equal(row["labels"][asked], row["input_ids"][asked])
    half = int(asked[0].sum())
    assert asked[:, -half:].all() and not asked[:, :-half].any()
    hidden = next(Batches(recipe("bert", "sort", padding="none")))
    assert ((hidden["labels"] != IGNORED).sum(dim=1) == max(1, half // 2)).all()
    apart = next(Batches(recipe("t5", "sort", padding="none")))
    assert torch.equal(apart["labels"][:, :-1], apart["input_ids"][:, 1:-1].sort(dim=1).values)


def test_packed_rows_hold_several_documents():
    batch = next(Batches(recipe("llama", "lm_docstring", padding="packed", length=48)))
    ids, places, labels = batch["input_ids"], batch["position_ids"], batch["labels"]
    assert "attention_mask" not in batch and (ids != PAD).all()
    begins = places == 0
    assert (begins.sum(dim=1) >= 2).all() and begins[:, 0].all()
    assert (labels[begins] == IGNORED).all() and (labels != IGNORED).sum() > ids.numel() // 2
    steps = places.diff(dim=1)
    assert ((steps == 1) | begins[:, 1:]).all()


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
    drawn = [draw_recipe(family, task, TASKS[task].head(family), rng) for _ in range(300)]
    assert all(r.seed < FIRST_UNSEEN_SEED for r in drawn)
    assert {2, 3, 4, 5, 6, 8} <= {r.size.layers for r in drawn}
    assert {32, 64, 192} <= {r.size.width for r in drawn}
    assert {r.optimizer for r in drawn} == {"adamw", "adam", "sgd", "adafactor"}
    assert {r.autocast for r in drawn} == {True, False}
    assert {r.padding for r in drawn} <= set(families.FAMILIES[family].paddings)
    assert all(r.size.width % r.size.heads == 0 for r in drawn)
    assert all(r.size.heads % r.size.kv_heads == 0 for r in drawn)
    assert any(r.size.kv_heads < r.size.heads for r in drawn) == (family in ROTARY)
    assert any(r.padding == "left" for r in drawn) == (family in ROTARY)


def test_the_largest_sizes_are_never_drawn_for_training():
    rng = np.random.default_rng(0)
    for family in ("bert", "llama", "t5"):
        usual = [draw_size(family, rng) for _ in range(2000)]
        assert all(2 <= s.layers < holdout.LARGEST_LAYERS for s in usual)
        assert all(32 <= s.width < holdout.LARGEST_WIDTH for s in usual)
        largest = [draw_largest(family, rng) for _ in range(200)]
        assert all(
            s.layers >= holdout.LARGEST_LAYERS or s.width >= holdout.LARGEST_WIDTH for s in largest
        )
        assert max(s.layers for s in largest) == 12 and max(s.width for s in largest) == 256


def test_the_demo_never_uses_a_seed_of_the_corpus():
    assert demo_recipe("gpt2", FIRST_UNSEEN_SEED).seed == FIRST_UNSEEN_SEED
    with pytest.raises(ValueError, match="belong to the corpus"):
        demo_recipe("gpt2", FIRST_UNSEEN_SEED - 1)
