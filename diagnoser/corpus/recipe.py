"""What fixes a training: model, data, optimizer, schedule. Drawn at random, within convention."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np

from diagnoser.corpus import FIRST_UNSEEN_SEED
from diagnoser.corpus.vocabulary import SIZES

Family = Literal["bert", "roberta", "gpt2", "llama", "mistral", "qwen3"]
Padding = Literal["right", "left", "none", "no_mask"]
ENCODERS: tuple[Family, ...] = ("bert", "roberta")
ROTARY: tuple[Family, ...] = ("llama", "mistral", "qwen3")
DECODERS: tuple[Family, ...] = ("gpt2", *ROTARY)
FAMILIES: tuple[Family, ...] = (*ENCODERS, *DECODERS)


@dataclass(frozen=True)
class Size:
    """Shape of a model. ``kv_heads`` < ``heads`` is grouped-query attention (Llama's kin)."""

    layers: int
    width: int
    heads: int
    kv_heads: int
    vocabulary: int


@dataclass(frozen=True)
class Recipe:
    """A training that anyone can repeat: the same recipe gives the same losses."""

    family: Family
    task: str
    size: Size
    seed: int
    batch_size: int = 8
    length: int = 40
    padding: Padding = "right"
    """``right``, ``left``: rows of different lengths, padded to the longest of the batch.
    ``none``: full rows and a mask of ones. ``no_mask``: full rows, no mask passed."""
    optimizer: Literal["adamw", "adam"] = "adamw"
    learning_rate: float = 2e-3
    weight_decay: float = 0.01
    decay_norms: bool = False
    """True: one parameter group, norms and biases decayed too, as in many plain scripts."""
    warmup: int = 10
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    horizon: int = 400
    """Steps after which a linear or cosine schedule would reach 0."""
    clip: float | None = 1.0
    accumulate: int = 1
    dropout: float = 0.0
    tied: bool = True
    autocast: bool = False
    """bfloat16 autocast."""

    def description(self) -> dict[str, Any]:
        """Plain values, for the manifest."""
        return asdict(self)


def draw_size(family: Family, rng: np.random.Generator) -> Size:
    """Layers 2 to 6, width 32 to 128; the wide ones are shallow, to keep a step cheap."""
    width = int(rng.choice([32, 48, 64, 96, 128], p=[0.25, 0.2, 0.3, 0.15, 0.1]))
    most_layers = {32: 6, 48: 6, 64: 5, 96: 4, 128: 3}[width]
    layers = int(rng.integers(2, most_layers + 1))
    heads = int(rng.choice([h for h in (2, 3, 4, 8) if width % (2 * h) == 0 and width // h >= 8]))
    kv_heads = heads
    if family in ROTARY and heads % 2 == 0 and rng.random() < 0.6:
        kv_heads = heads // 2
    vocabulary = int(rng.choice(SIZES, p=[0.2, 0.4, 0.3, 0.1]))
    return Size(layers, width, heads, kv_heads, vocabulary)


def draw_recipe(family: Family, task: str, rng: np.random.Generator) -> Recipe:
    """A training within the field's conventions. Its seed lies below ``FIRST_UNSEEN_SEED``."""
    paddings: list[Padding] = ["right", "right", "none", "no_mask"]
    if family in ROTARY:  # left padding is harmless to rotary positions only
        paddings.append("left")
    classifies = task in ("which_module", "code_or_prose")
    if classifies and family in DECODERS:  # the last real token is found by its padding
        paddings.remove("no_mask")
    return Recipe(
        family=family,
        task=task,
        size=draw_size(family, rng),
        seed=int(rng.integers(0, FIRST_UNSEEN_SEED)),
        batch_size=int(rng.choice([4, 6, 8, 12, 16], p=[0.3, 0.2, 0.3, 0.1, 0.1])),
        length=int(rng.choice([24, 32, 40, 48, 64], p=[0.2, 0.3, 0.2, 0.2, 0.1])),
        padding=paddings[int(rng.integers(len(paddings)))],
        optimizer="adamw" if rng.random() < 0.8 else "adam",
        learning_rate=float(10 ** rng.uniform(-3.7, -2.3)),
        weight_decay=float(rng.choice([0.0, 0.01, 0.05, 0.1])),
        decay_norms=bool(rng.random() < 0.3),
        warmup=int(rng.choice([0, 5, 10, 30])),
        schedule=("constant", "linear", "cosine")[int(rng.integers(3))],
        horizon=int(rng.choice([300, 600, 1200])),
        clip=1.0 if rng.random() < 0.7 else None,
        accumulate=2 if rng.random() < 0.08 else 1,
        dropout=0.1 if rng.random() < 0.5 else 0.0,
        tied=bool(rng.random() < 0.6),
        autocast=bool(rng.random() < 0.06),
    )


def demo_recipe(family: Family, seed: int) -> Recipe:
    """The training the demo shows. Raises :class:`ValueError` for a seed the corpus may hold."""
    if seed < FIRST_UNSEEN_SEED:
        raise ValueError(f"seeds below {FIRST_UNSEEN_SEED} belong to the corpus; choose a higher")
    rng = np.random.default_rng(seed)
    task = "mlm_source" if family in ENCODERS else "lm_source"
    recipe = draw_recipe(family, task, rng)
    size = Size(4, 64, 4, 2 if family in ROTARY else 4, 512)
    return replace(
        recipe,
        size=size,
        seed=seed,
        batch_size=8,
        length=40,
        padding="right",
        optimizer="adamw",
        learning_rate=2e-3,
        schedule="constant",
        clip=1.0,
        accumulate=1,
        autocast=False,
    )
