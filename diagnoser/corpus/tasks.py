"""Tasks on real text, on made-up symbols and on images, and the batches they yield.

Every task names the head it needs, and so the families it serves. A batch is what a transformers
model takes: ``input_ids``, ``attention_mask`` (unless the recipe passes none), ``labels``; for
images ``pixel_values`` and ``labels``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch

from diagnoser.corpus import symbols, vocabulary
from diagnoser.corpus.families import FAMILIES, Head, Kind, Padding
from diagnoser.corpus.images import DIRECTIONS, striped
from diagnoser.corpus.recipe import Recipe
from diagnoser.corpus.symbols import Question
from diagnoser.corpus.vocabulary import BEGIN, END, MASK, PAD, Tokens, encoded_modules

IGNORED = -100
CLASSES_OF_MODULES = 6
DOCUMENTS = 3
"""Most documents in a packed row."""

Example = tuple[Tokens, Tokens]
"""Ids and labels of one row before padding; a class label has shape ()."""


@dataclass(frozen=True)
class Text:
    """What examples are cut from: token streams, some with a class."""

    streams: tuple[Tokens, ...]
    vocabulary: int


Examples = Callable[[Text, int, np.random.Generator], Example]


@dataclass(frozen=True)
class Task:
    """``examples``: for each kind of model and head that the task serves, a function
    ``example(text, length, rng)`` that makes one row of about ``length`` tokens."""

    name: str
    examples: dict[tuple[Kind, Head], Examples]
    text: Callable[[int], Text]
    classes: int = 0
    families: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        served = tuple(name for name in FAMILIES if self._served(name) is not None)
        object.__setattr__(self, "families", served)

    def _served(self, family: str) -> tuple[Kind, Head] | None:
        entry = FAMILIES[family]
        return next((k for k in self.examples if k[0] == entry.kind and k[1] in entry.heads), None)

    def kind_and_head(self, family: str) -> tuple[Kind, Head]:
        """What the task asks of the family. Raises ValueError where it does not serve it."""
        found = self._served(family)
        if found is None:
            raise ValueError(f"{self.name} is no task for {family}")
        return found

    def head(self, family: str) -> Head:
        """The head it needs on a model of the family."""
        return self.kind_and_head(family)[1]

    def example(self, family: str) -> Examples:
        """What makes its rows for the family."""
        return self.examples[self.kind_and_head(family)]


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


def _spans(text: Text, length: int, rng: np.random.Generator) -> Example:
    """T5's: pieces cut out of the source, each told in the target after a MASK."""
    ids = _any_snippet(text, length - 2, rng)
    starts = np.sort(rng.choice(np.arange(1, len(ids) - 3, 4), size=max(1, len(ids) // 16)))
    gap, source, target, before = np.array([MASK]), [np.array([BEGIN])], [], 0
    for start in np.unique(starts):
        stop = int(start) + int(rng.integers(1, 4))
        source += [ids[before:start], gap]
        target += [gap, ids[start:stop]]
        before = stop
    return np.concatenate([*source, ids[before:], [END]]), np.concatenate([*target, [END]])


def _continued(question: Question, text: Text, length: int, rng: np.random.Generator) -> Example:
    """Question and answer in one row, the answer asked for."""
    asked, answer = question(length - 2, text.vocabulary, rng)
    ids = np.concatenate([[BEGIN], asked, [END], answer])
    labels = np.full_like(ids, IGNORED)
    labels[-len(answer) :] = answer
    return ids, labels


def _filled_in(question: Question, text: Text, length: int, rng: np.random.Generator) -> Example:
    """Question and answer in one row, a part of the answer hidden."""
    ids, labels = _continued(question, text, length, rng)
    answer = np.flatnonzero(labels != IGNORED)
    chosen = rng.choice(answer, size=max(1, len(answer) // 2), replace=False)
    return _hide(ids, np.sort(chosen), text.vocabulary, rng)


def _answered(question: Question, text: Text, length: int, rng: np.random.Generator) -> Example:
    """The question read by the encoder, the answer written by the decoder."""
    asked, answer = question(length - 2, text.vocabulary, rng)
    return np.concatenate([[BEGIN], asked, [END]]), np.concatenate([answer, [END]])


def _judged(
    judge: Callable[[int, int, np.random.Generator], tuple[Tokens, int]],
    text: Text,
    length: int,
    rng: np.random.Generator,
) -> Example:
    ids, label = judge(length - 2, text.vocabulary, rng)
    return np.concatenate([[BEGIN], ids, [END]]), np.array(label, dtype=np.int64)


def _no_text(size: int) -> Text:
    return Text((), size)


def _classify(example: Examples) -> dict[tuple[Kind, Head], Examples]:
    return {("encoder", "classes"): example, ("decoder", "classes"): example}


def _solve(name: str, question: Question) -> Task:
    """A task that every kind of text model can be asked for its answer."""
    examples: dict[tuple[Kind, Head], Examples] = {
        ("decoder", "lm"): partial(_continued, question),
        ("encoder", "mlm"): partial(_filled_in, question),
        ("coded", "seq2seq"): partial(_answered, question),
    }
    return Task(name, examples, _no_text)


def _no_row(text: Text, length: int, rng: np.random.Generator) -> Example:
    raise ValueError("images are made as a batch")


TASKS = {
    task.name: task
    for task in (
        Task("lm_source", {("decoder", "lm"): _language_model}, _code),
        Task("lm_docstring", {("decoder", "lm"): _language_model}, _prose),
        Task("mlm_source", {("encoder", "mlm"): _masked}, _code),
        Task("mlm_docstring", {("encoder", "mlm"): _masked}, _prose),
        Task("which_module", _classify(_classified), _modules, CLASSES_OF_MODULES),
        Task("code_or_prose", _classify(_classified), _both, 2),
        Task("copy", {("decoder", "lm"): _copied}, _prose),
        Task("restore", {("encoder", "mlm"): _restored}, _prose),
        Task("spans", {("coded", "seq2seq"): _spans}, _prose),
        _solve("sort", symbols.sort),
        _solve("recall", symbols.recall),
        _solve("modular", symbols.modular),
        Task(
            "majority",
            _classify(partial(_judged, symbols.majority)),
            _no_text,
            symbols.CANDIDATES,
        ),
        Task("parity", _classify(partial(_judged, symbols.parity)), _no_text, 2),
        Task("patches", {("vision", "classes"): _no_row}, _no_text, DIRECTIONS),
    )
}


def pairs() -> tuple[tuple[str, str], ...]:
    """Every (family, task) that can be trained, the final hold-out's too."""
    return tuple((family, task.name) for task in TASKS.values() for family in task.families)


class Batches:
    """An endless, copyable iterator of batches, fixed by recipe, seed and ``stream``."""

    def __init__(self, recipe: Recipe, stream: int = 1) -> None:
        self.task = TASKS[recipe.task]
        self.kind, self.head = self.task.kind_and_head(recipe.family)
        self.example = self.task.example(recipe.family)
        self.text = self.task.text(recipe.size.vocabulary)
        self.batch_size = recipe.batch_size
        self.length = recipe.length
        self.padding: Padding = recipe.padding
        self.rng = np.random.default_rng([recipe.seed, stream])

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
        if self.kind == "vision":
            return self._images()
        if self.padding == "packed":
            return _pack([self._documents() for _ in range(self.batch_size)])
        full = self.padding in ("none", "no_mask")
        lengths = [
            self.length if full else int(self.rng.integers(max(8, self.length // 3), self.length))
            for _ in range(self.batch_size)
        ]
        rows = [self.example(self.text, n, self.rng) for n in lengths]
        return _collate(rows, self.padding, answers_apart=self.kind == "coded")

    def _documents(self) -> list[Example]:
        """Rows that together are ``length`` tokens long, or a little less."""
        count = int(self.rng.integers(2, DOCUMENTS + 1)) if self.length >= 16 else 1
        return [self.example(self.text, self.length // count, self.rng) for _ in range(count)]

    def _images(self) -> dict[str, torch.Tensor]:
        images, labels = zip(
            *(striped(self.length, self.rng) for _ in range(self.batch_size)), strict=True
        )
        return {"pixel_values": torch.from_numpy(np.stack(images)), "labels": torch.tensor(labels)}


def _pack(rows: list[list[Example]]) -> dict[str, torch.Tensor]:
    """Several documents a row, all rows as long as the shortest. transformers sees by the position
    ids where one begins, if neither a mask nor a cache is given. Nobody is asked to foretell the
    first token of a document."""
    for row in rows:
        for _, labels in row:
            labels[0] = IGNORED
    width = min(sum(len(ids) for ids, _ in row) for row in rows)
    joined: list[Tokens] = [
        np.stack([np.concatenate(parts)[:width] for parts in column])
        for column in (
            [[ids for ids, _ in row] for row in rows],
            [[labels for _, labels in row] for row in rows],
            [[np.arange(len(ids)) for ids, _ in row] for row in rows],
        )
    ]
    names = ("input_ids", "labels", "position_ids")
    return {name: torch.from_numpy(part) for name, part in zip(names, joined, strict=True)}


def _collate(
    rows: list[Example], padding: Padding, answers_apart: bool = False
) -> dict[str, torch.Tensor]:
    """``answers_apart``: labels are rows of their own, padded on the right."""
    width = max(len(ids) for ids, _ in rows)
    token_labels = rows[0][1].ndim == 1
    ids = np.full((len(rows), width), PAD, dtype=np.int64)
    mask = np.zeros((len(rows), width), dtype=np.int64)
    wide = max(len(labels) for _, labels in rows) if answers_apart else width
    labels = np.full((len(rows), wide) if token_labels else len(rows), IGNORED, dtype=np.int64)
    for row, (tokens, label) in enumerate(rows):
        at = slice(width - len(tokens), width) if padding == "left" else slice(len(tokens))
        ids[row, at] = tokens
        mask[row, at] = 1
        if answers_apart:
            labels[row, : len(label)] = label
        elif token_labels:
            labels[row, at] = label
        else:
            labels[row] = label
    batch = {"input_ids": torch.from_numpy(ids), "labels": torch.from_numpy(labels)}
    if padding != "no_mask":
        batch["attention_mask"] = torch.from_numpy(mask)
    return batch
