"""The final hold-out: what no training plan contains and no weights have seen.

It is drawn by a plan of its own (``python -m diagnoser.corpus build --final``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from diagnoser.corpus import FIRST_FINAL_SEED

if TYPE_CHECKING:
    from diagnoser.corpus.recipe import Recipe

FAMILIES = ("distilbert", "phi3")
TASKS = ("modular", "parity")
LARGEST_LAYERS = 11
"""Models of so many layers, or more, are held out."""
LARGEST_WIDTH = 256
"""Models of such a width, or wider, are held out."""


def reason(recipe: Recipe) -> str | None:
    """Why a recipe belongs to the final hold-out; None where it may be trained on."""
    if recipe.family in FAMILIES:
        return f"its family {recipe.family}"
    if recipe.task in TASKS:
        return f"its task {recipe.task}"
    size = recipe.size
    if size.layers >= LARGEST_LAYERS or size.width >= LARGEST_WIDTH:
        return f"its size, {size.layers} layers of width {size.width}"
    if recipe.seed >= FIRST_FINAL_SEED:
        return f"its seed {recipe.seed}"
    return None
