"""Packed documents: positions start anew, attention does not."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from diagnoser.corpus.realworld import models
from diagnoser.corpus.realworld.case import Case, Script
from diagnoser.corpus.realworld.scripts import training
from diagnoser.corpus.realworld.token_rows import IGNORED, Batch, text

ROWS, DOCUMENT, DOCUMENTS = 8, 16, 3


def _packed(seed: int, fixed: bool) -> Iterator[Batch]:
    """Three documents a row; transformers keeps them apart by positions that start anew, unless it
    is given a mask that says that all tokens belong together."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        ids = text(generator, ROWS * DOCUMENTS, DOCUMENT)
        labels = ids.clone()
        labels[:, 0] = IGNORED
        batch = {
            "input_ids": ids.view(ROWS, -1),
            "labels": labels.view(ROWS, -1),
            "position_ids": torch.arange(DOCUMENT).repeat(ROWS, DOCUMENTS),
        }
        yield batch if fixed else batch | {"attention_mask": torch.ones_like(batch["input_ids"])}


def build(fixed: bool) -> Script:
    """Training on packed rows."""
    model = models.llama()
    model.config.use_cache = False
    return training(model, _packed(14, fixed))


CASE = Case(
    issue="huggingface/nanoVLM#201",
    reported="Position ids in packed sequences (and, found with them, attention across samples)",
    wrong="Documents packed into a row get positions of their own, but with a mask of ones: a "
    "token attends to the documents before its own.",
    category="masking",
    root_cause="dynamic_mask",
    shown="training",
    build=build,
)
