"""Tasks on real text, and the batches they yield.

Every task names the families it serves and the head it needs. A batch is what a transformers
model takes: ``input_ids``, ``attention_mask`` (unless the recipe passes none), ``labels``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from diagnoser.corpus import vocabulary
from diagnoser.corpus.recipe import DECODERS, ENCODERS, FAMILIES, Family, Padding, Recipe
from diagnoser.corpus.vocabulary import BEGIN, END, MASK, PAD, Tokens, encoded_modules

IGNORED = -100
CLASSES_OF_MODULES = 6

Head = Literal["lm", "mlm", "classes"]
Example = tuple[Tokens, Tokens]
"""Ids and labels of one row before padding; a class label has shape ()."""


@dataclass(frozen=True)
class Text:
    """What examples are cut from: token streams, some with a class."""

    streams: tuple[Tokens, ...]
    vocabulary: int


@dataclass(frozen=True)
class Task:
    """``example(text, length, rng)`` makes one row of about ``length`` tokens."""

    name: str
    families: tuple[Family, ...]
    head: Head
    classes: int
    text: Callable[[int], Text]
    example: Callable[[Text, int, np.random.Generator], Example]


def _code(size: int) -> Text:
    return Text(tuple(m.code for m in encoded_modules(size)), size)


def _prose(size: int) -> Text:
    return Text((np.concatenate([m.prose for m in encoded_modules(size)]),), size)


def _modules(size: int) -> Text:
    largest = sorted(encoded_modules(size), key=lambda m: (-len(m.code), m.name))
    return Text(tuple(m.code for m in largest[:CLASSES_OF_MODULES]), size)


def _both(size: int) -> Text:
    parts = encoded_modules(size)
    code, prose = (np.concatenate([getattr(m, kind) for m in parts]) for kind in ("code", "prose"))
    return Text((code, prose), size)


def _snippet(stream: Tokens, length: int, rng: np.random.Generator) -> Tokens:
    start = int(rng.integers(0, max(1, len(stream) - length)))
    return stream[start : start + length]


def _any_snippet(text: Text, length: int, rng: np.random.Generator) -> Tokens:
    return _snippet(text.streams[int(rng.integers(len(text.streams)))], length, rng)


def _language_model(text: Text, length: int, rng: np.random.Generator) -> Example:
    ids = np.concatenate([[BEGIN], _any_snippet(text, length - 1, rng)])
    return ids, ids.copy()


def _hide(ids: Tokens, chosen: Tokens, size: int, rng: np.random.Generator) -> Example:
    """BERT's masking: of the chosen positions 80 % MASK, 10 % another token, 10 % unchanged."""
    labels = np.full_like(ids, IGNORED)
    labels[chosen] = ids[chosen]
    fate = rng.random(len(chosen))
    hidden = ids.copy()
    hidden[chosen[fate < 0.8]] = MASK
    other = chosen[(fate >= 0.8) & (fate < 0.9)]
    hidden[other] = rng.integers(vocabulary.SPECIALS, size, len(other))
    return hidden, labels


def _masked(text: Text, length: int, rng: np.random.Generator) -> Example:
    ids = np.concatenate([[BEGIN], _any_snippet(text, length - 2, rng), [END]])
    inner = np.arange(1, len(ids) - 1)
    chosen = rng.choice(inner, size=max(1, round(0.15 * len(inner))), replace=False)
    return _hide(ids, np.sort(chosen), text.vocabulary, rng)


def _classified(text: Text, length: int, rng: np.random.Generator) -> Example:
    label = int(rng.integers(len(text.streams)))
    ids = np.concatenate([[BEGIN], _snippet(text.streams[label], length - 2, rng), [END]])
    return ids, np.array(label, dtype=np.int64)


def _repeated(text: Text, length: int, rng: np.random.Generator) -> Tokens:
    half = _any_snippet(text, (length - 2) // 2, rng)
    return np.concatenate([[BEGIN], half, [END], half])


def _copied(text: Text, length: int, rng: np.random.Generator) -> Example:
    ids = _repeated(text, length, rng)
    labels = ids.copy()
    labels[: len(ids) // 2 + 1] = IGNORED
    return ids, labels


def _restored(text: Text, length: int, rng: np.random.Generator) -> Example:
    ids = _repeated(text, length, rng)
    second = np.arange(len(ids) // 2 + 1, len(ids))
    chosen = rng.choice(second, size=max(1, len(second) // 3), replace=False)
    return _hide(ids, np.sort(chosen), text.vocabulary, rng)


TASKS = {
    task.name: task
    for task in (
        Task("lm_source", DECODERS, "lm", 0, _code, _language_model),
        Task("lm_docstring", DECODERS, "lm", 0, _prose, _language_model),
        Task("mlm_source", ENCODERS, "mlm", 0, _code, _masked),
        Task("mlm_docstring", ENCODERS, "mlm", 0, _prose, _masked),
        Task("which_module", FAMILIES, "classes", CLASSES_OF_MODULES, _modules, _classified),
        Task("code_or_prose", FAMILIES, "classes", 2, _both, _classified),
        Task("copy", DECODERS, "lm", 0, _prose, _copied),
        Task("restore", ENCODERS, "mlm", 0, _prose, _restored),
    )
}


def pairs() -> tuple[tuple[Family, str], ...]:
    """Every (family, task) that can be trained."""
    return tuple((family, task.name) for task in TASKS.values() for family in task.families)


class Batches:
    """An endless, copyable iterator of batches, fixed by recipe and seed."""

    def __init__(self, recipe: Recipe) -> None:
        self.task = TASKS[recipe.task]
        if recipe.family not in self.task.families:
            raise ValueError(f"{recipe.task} is no task for {recipe.family}")
        self.text = self.task.text(recipe.size.vocabulary)
        self.batch_size = recipe.batch_size
        self.length = recipe.length
        self.padding: Padding = recipe.padding
        self.rng = np.random.default_rng([recipe.seed, 1])

    def fork(self) -> Batches:
        """An iterator that will yield the same batches; the text is shared."""
        twin = object.__new__(Batches)
        twin.__dict__.update(self.__dict__)
        twin.rng = np.random.default_rng()
        twin.rng.bit_generator.state = self.rng.bit_generator.state
        return twin

    def __iter__(self) -> Batches:
        return self

    def __next__(self) -> dict[str, torch.Tensor]:
        full = self.padding in ("none", "no_mask")
        lengths = [
            self.length if full else int(self.rng.integers(max(8, self.length // 3), self.length))
            for _ in range(self.batch_size)
        ]
        rows = [self.task.example(self.text, n, self.rng) for n in lengths]
        return _collate(rows, self.padding)


def _collate(rows: list[Example], padding: Padding) -> dict[str, torch.Tensor]:
    width = max(len(ids) for ids, _ in rows)
    token_labels = rows[0][1].ndim == 1
    ids = np.full((len(rows), width), PAD, dtype=np.int64)
    mask = np.zeros((len(rows), width), dtype=np.int64)
    labels = np.full((len(rows), width) if token_labels else len(rows), IGNORED, dtype=np.int64)
    for row, (tokens, label) in enumerate(rows):
        at = slice(width - len(tokens), width) if padding == "left" else slice(len(tokens))
        ids[row, at] = tokens
        mask[row, at] = 1
        if token_labels:
            labels[row, at] = label
        else:
            labels[row] = label
    batch = {"input_ids": torch.from_numpy(ids), "labels": torch.from_numpy(labels)}
    if padding != "no_mask":
        batch["attention_mask"] = torch.from_numpy(mask)
    return batch
