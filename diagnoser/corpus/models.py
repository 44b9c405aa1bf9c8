"""Small models of the corpus's families, weights from a seed."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import nn

from diagnoser.corpus import CorpusError
from diagnoser.corpus.families import FAMILIES
from diagnoser.corpus.recipe import Recipe
from diagnoser.corpus.tasks import TASKS


def build(recipe: Recipe) -> nn.Module:
    """The recipe's model in training mode; its weights follow from the recipe's seed alone.

    Seeds torch's global generator, as a script's ``manual_seed`` would.
    """
    task = TASKS[recipe.task]
    rng = np.random.default_rng([recipe.seed, 2])
    positions = recipe.length * int(rng.choice([1, 2, 4]))
    make = FAMILIES[recipe.family].heads[task.head(recipe.family)]
    model = make(recipe, task.classes, positions, rng)
    if recipe.padding == "packed":
        settings: Any = model.config
        settings.use_cache = False  # or the documents of a row are not told apart
    return model.train()


def adapt(model: nn.Module, recipe: Recipe) -> nn.Module:
    """The model with LoRA on every projection; the head of a classifier is trained in full.

    Raises :class:`CorpusError` where PEFT is not installed.
    """
    try:
        import peft
    except ImportError:
        raise CorpusError("runs with adapters need PEFT: pip install peft") from None
    classifies = TASKS[recipe.task].head(recipe.family) == "classes"
    settings = peft.LoraConfig(
        r=4,
        lora_alpha=8,
        lora_dropout=recipe.dropout,
        target_modules="all-linear",
        task_type="SEQ_CLS" if classifies else None,
    )
    adapted: nn.Module = peft.get_peft_model(model, settings)
    return adapted.train()
