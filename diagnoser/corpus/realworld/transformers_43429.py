"""A composite model does not tie its head: the checkpoint holds none, so that it stays random."""

from __future__ import annotations

import torch
from transformers import (
    LlamaConfig,
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    PixtralVisionConfig,
)

from diagnoser.corpus.realworld import models
from diagnoser.corpus.realworld.case import Case, Script
from diagnoser.corpus.realworld.scripts import pretrained, training
from diagnoser.corpus.realworld.token_rows import VOCABULARY, causal_batches


def _composite(tied_at_the_top: bool) -> Mistral3ForConditionalGeneration:
    text = LlamaConfig(**models.rotary_settings(), tie_word_embeddings=True)
    vision = PixtralVisionConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=8,
        patch_size=4,
    )
    config = Mistral3Config(
        text_config=text,
        vision_config=vision,
        image_token_index=VOCABULARY - 1,
        tie_word_embeddings=tied_at_the_top,
    )
    return Mistral3ForConditionalGeneration(config)


def build(fixed: bool) -> Script:
    """Fine-tuning, on text alone, from a checkpoint whose head was tied."""
    before = _composite(True)
    pretrained(before, causal_batches(21))
    saved = before.state_dict()
    saved.pop("lm_head.weight")
    model = _composite(fixed)
    missing = model.load_state_dict(saved, strict=False).missing_keys
    if missing != ["lm_head.weight"]:
        raise RuntimeError(f"the checkpoint lacks {missing}, not the head alone")
    for parameter in model.model.vision_tower.parameters():
        parameter.requires_grad_(False)
    for parameter in model.model.multi_modal_projector.parameters():
        parameter.requires_grad_(False)
    with torch.no_grad():
        model.tie_weights()
    return training(model, causal_batches(22))


CASE = Case(
    issue="huggingface/transformers#43429",
    reported="Fix lm_head weight tying in Mistral3ForConditionalGeneration",
    wrong="The text config ties head and embeddings, the config of the whole does not: the head"
    " that the checkpoint leaves out is not tied but random.",
    category="output",
    root_cause="output_type",
    shown="training",
    build=build,
)
