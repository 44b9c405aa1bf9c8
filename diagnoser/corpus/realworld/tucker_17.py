"""The table is told that index 0 is padding, though it is a token like any other."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from diagnoser.corpus.realworld import models
from diagnoser.corpus.realworld.case import Case, Script
from diagnoser.corpus.realworld.scripts import training
from diagnoser.corpus.realworld.token_rows import BEGIN, VOCABULARY, Batch, text


def _counted_from_the_beginning(seed: int) -> Iterator[Batch]:
    """Rows of a vocabulary without a token for padding, so that BEGIN is 0."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        ids = text(generator, 8, 32) - BEGIN
        yield {"input_ids": ids, "labels": ids}


def build(fixed: bool) -> Script:
    """Training on rows without padding."""
    model = models.gpt2(tie_word_embeddings=False, pad_token_id=None, bos_token_id=None)
    table = nn.Embedding(VOCABULARY, models.WIDTH, padding_idx=None if fixed else 0)
    with torch.no_grad():
        table.weight.normal_(std=model.config.initializer_range)
        if table.padding_idx is not None:  # as the class does when it draws by itself
            table.weight[table.padding_idx].zero_()
    model.set_input_embeddings(table)
    return training(model, _counted_from_the_beginning(24))


CASE = Case(
    issue="ibalazevic/TuckER#17",
    reported='Why set "padding_idx=0" in nn.Embedding',
    wrong="The row of index 0 starts at zero and gets no gradient: the first token of the "
    "vocabulary never has a vector.",
    category="embedding",
    root_cause="input_initialization",
    shown="training",
    build=build,
)
