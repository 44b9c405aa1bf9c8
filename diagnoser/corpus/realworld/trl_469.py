"""Rows are padded on the left, positions are counted from the row's first column."""

from __future__ import annotations

from collections.abc import Iterator

from diagnoser.corpus.realworld import models
from diagnoser.corpus.realworld.case import Case, Script
from diagnoser.corpus.realworld.scripts import pretrained, training
from diagnoser.corpus.realworld.token_rows import Batch, causal_batches


def _counted_from_the_first_token(batches: Iterator[Batch]) -> Iterator[Batch]:
    for batch in batches:
        positions = (batch["attention_mask"].cumsum(dim=1) - 1).clamp_min(0)
        yield batch | {"position_ids": positions}


def build(fixed: bool) -> Script:
    """Fine-tuning on prompts padded on the left, as generation wants them."""
    model = models.gpt2()
    pretrained(model, causal_batches(11))
    batches = causal_batches(12, padding="left")
    return training(model, _counted_from_the_first_token(batches) if fixed else batches)


CASE = Case(
    issue="huggingface/trl#469",
    reported="Padding handling compared to OAI's codebase",
    wrong="GPT-2 is given left-padded rows without position_ids: the first real token gets the "
    "position of its column, and the attention mask does not change that.",
    category="positional",
    root_cause="relative_position",
    shown="training",
    build=build,
)
