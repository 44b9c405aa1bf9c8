"""Whether head and embedding are one weight is stated by the config above the head, or by its part
on text."""

from __future__ import annotations

import pytest
import torch
import transformers as hf
from family_grid import over
from more_models import IMAGE, MORE
from tiny_models import Seen, batch, make
from torch import nn

import probe


def _train(model, given, trace) -> Seen:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    with probe.attach(model, optimizer, endpoint=False, every=1, budget=None, trace=trace):
        for _ in range(3):
            model(**given()).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    return Seen(trace)


def _llava(outer: bool, inner: bool, tied: bool) -> nn.Module:
    torch.manual_seed(1)
    model = MORE["llava"].make().train()
    assert model.config.image_token_index == IMAGE
    model.config.tie_word_embeddings = outer
    model.config.text_config.tie_word_embeddings = inner
    if tied:
        model.lm_head.weight = model.get_input_embeddings().weight
    return model


@pytest.mark.parametrize(
    ("outer", "inner", "tied"),
    [(True, False, True), (False, True, True), (False, False, False)],
)
def test_ties_as_stated_are_healthy(outer, inner, tied, tmp_path):
    seen = _train(_llava(outer, inner, tied), MORE["llava"].batch, tmp_path / "t")
    assert over(seen) == {}
    assert (seen["output/untied"][0] == 0.0) == (outer or inner)


@pytest.mark.parametrize(("outer", "inner"), [(True, False), (False, True)])
def test_a_stated_tie_that_is_not_there_is_told(outer, inner, tmp_path):
    seen = _train(_llava(outer, inner, tied=False), MORE["llava"].batch, tmp_path / "t")
    assert set(over(seen)) == {"output/untied"}


class Around(nn.Module):
    """A language model inside another, whose config states a tie for itself."""

    def __init__(self) -> None:
        super().__init__()
        self.language_model = make("llama")
        self.config = hf.LlavaConfig(
            text_config=self.language_model.config, tie_word_embeddings=True
        )

    def forward(self, input_ids, attention_mask=None, labels=None):
        return self.language_model(
            input_ids=input_ids, attention_mask=attention_mask, labels=labels
        )


def test_the_config_nearest_to_the_head_counts(tmp_path):
    seen = _train(Around(), lambda: batch("llama"), tmp_path / "t")
    assert "output/untied" not in over(seen)
