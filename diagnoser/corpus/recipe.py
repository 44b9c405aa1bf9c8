"""What fixes a training: model, data, optimizer, schedule. Drawn at random, within convention."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np

from diagnoser.corpus import FIRST_UNSEEN_SEED, families, holdout
from diagnoser.corpus.families import Padding
from diagnoser.corpus.vocabulary import SIZES

FAMILIES = tuple(families.FAMILIES)
ENCODERS = tuple(name for name, f in families.FAMILIES.items() if f.kind == "encoder")
DECODERS = tuple(name for name, f in families.FAMILIES.items() if f.kind == "decoder")
ROTARY = tuple(name for name, f in families.FAMILIES.items() if f.grouped)


@dataclass(frozen=True)
class Size:
    """Shape of a model. ``kv_heads`` < ``heads`` is grouped-query attention (Llama's kin).

    Of a model with encoder and decoder, each has half of the layers, at least two.
    """

    layers: int
    width: int
    heads: int
    kv_heads: int
    vocabulary: int


@dataclass(frozen=True)
class Recipe:
    """A training that anyone can repeat: the same recipe gives the same losses."""

    family: str
    task: str
    size: Size
    seed: int
    batch_size: int = 8
    length: int = 40
    padding: Padding = "right"
    """``right``, ``left``: rows of different lengths, padded to the longest of the batch.
    ``none``: full rows and a mask of ones. ``no_mask``: full rows, no mask passed. ``packed``: full
    rows of several documents, told apart by position ids."""
    optimizer: Literal["adamw", "adam", "sgd", "adafactor"] = "adamw"
    learning_rate: float = 2e-3
    weight_decay: float = 0.01
    decay_norms: bool = False
    """True: one parameter group, norms and biases decayed too, as in many plain scripts."""
    warmup: int = 10
    schedule: Literal["constant", "linear", "cosine", "inverse", "steps"] = "constant"
    horizon: int = 400
    """Steps after which a linear or cosine schedule would reach 0."""
    clip: float | None = 1.0
    accumulate: int = 1
    dropout: float = 0.0
    tied: bool = True
    autocast: bool = False
    """bfloat16 autocast."""
    pretrained: int = 0
    """Steps that the weights have behind them, on other batches, with an optimizer of their own."""
    adapters: bool = False
    """LoRA on every projection, the rest frozen."""

    def description(self) -> dict[str, Any]:
        """Plain values, for the manifest."""
        return asdict(self)


_MOST_LAYERS = {32: 10, 48: 8, 64: 6, 96: 5, 128: 4, 192: 3}
"""Width -> most layers: the wide ones are shallow, to keep a step cheap."""

RATE_FACTORS = {"adamw": 1.0, "adam": 1.0, "adafactor": 1.0, "sgd": 30.0}
"""How much larger an optimizer's usual learning rate is than Adam's."""


def draw_size(family: str, rng: np.random.Generator) -> Size:
    """Layers 2 to 10, width 32 to 192, none as large as the final hold-out's largest."""
    width = int(rng.choice(list(_MOST_LAYERS), p=[0.25, 0.2, 0.26, 0.13, 0.1, 0.06]))
    layers = int(rng.integers(2, _MOST_LAYERS[width] + 1))
    return _size(family, layers, width, rng)


def draw_largest(family: str, rng: np.random.Generator) -> Size:
    """Deeper, or wider, than any model that is trained on: 11 or 12 layers, or 256 wide."""
    if rng.random() < 0.5:
        layers = int(rng.integers(holdout.LARGEST_LAYERS, holdout.LARGEST_LAYERS + 2))
        return _size(family, layers, int(rng.choice([32, 64])), rng)
    return _size(family, int(rng.integers(2, 5)), holdout.LARGEST_WIDTH, rng)


def _size(family: str, layers: int, width: int, rng: np.random.Generator) -> Size:
    heads = int(rng.choice([h for h in (2, 3, 4, 8) if width % (2 * h) == 0 and width // h >= 8]))
    kv_heads = heads
    if family in ROTARY and heads % 2 == 0:
        chance = rng.random()
        kv_heads = 1 if chance < 0.1 else heads // 2 if chance < 0.6 else heads
    vocabulary = int(rng.choice(SIZES, p=[0.2, 0.4, 0.3, 0.1]))
    return Size(layers, width, heads, kv_heads, vocabulary)


def _paddings(family: str, head: str) -> list[Padding]:
    """How rows of the family may be batched for such a head."""
    entry = families.FAMILIES[family]
    found = list(entry.paddings)
    if head == "classes" and entry.kind == "decoder":
        # The last real token is found by its padding, and there is one label a row.
        found = [padding for padding in found if padding not in ("no_mask", "packed")]
    return found


def draw_recipe(family: str, task: str, head: str, rng: np.random.Generator) -> Recipe:
    """A training within the field's conventions. Its seed lies below ``FIRST_UNSEEN_SEED``."""
    paddings = _paddings(family, head)
    size = draw_size(family, rng)
    seed = int(rng.integers(0, FIRST_UNSEEN_SEED))
    batch_size = int(rng.choice([4, 6, 8, 12, 16], p=[0.3, 0.2, 0.3, 0.1, 0.1]))
    length = int(rng.choice([24, 32, 40, 48, 64], p=[0.2, 0.3, 0.2, 0.2, 0.1]))
    padding = paddings[int(rng.integers(len(paddings)))]
    kinds = ("adamw", "adam", "sgd", "adafactor")
    optimizer = kinds[int(np.searchsorted([0.62, 0.78, 0.9], rng.random(), side="right"))]
    return Recipe(
        family=family,
        task=task,
        size=size,
        seed=seed,
        batch_size=batch_size,
        length=length,
        padding=padding,
        optimizer=optimizer,  # type: ignore[arg-type]
        learning_rate=float(10 ** rng.uniform(-3.7, -2.3)) * RATE_FACTORS[optimizer],
        weight_decay=float(rng.choice([0.0, 0.01, 0.05, 0.1])),
        decay_norms=bool(rng.random() < 0.3),
        warmup=int(rng.choice([0, 5, 10, 30])),
        schedule=("constant", "linear", "cosine", "inverse", "steps")[int(rng.integers(5))],
        horizon=int(rng.choice([300, 600, 1200])),
        clip=1.0 if rng.random() < 0.7 else None,
        accumulate=2 if rng.random() < 0.08 else 1,
        dropout=(0.1, 0.2, 0.0)[int(np.searchsorted([0.4, 0.5], rng.random(), side="right"))],
        tied=bool(rng.random() < 0.6),
        autocast=bool(rng.random() < 0.1),
        pretrained=int(rng.integers(60, 200)) if rng.random() < 0.25 else 0,
    )


def demo_recipe(family: str, seed: int) -> Recipe:
    """The training the demo shows. Raises :class:`ValueError` for a seed the corpus may hold."""
    if seed < FIRST_UNSEEN_SEED:
        raise ValueError(f"seeds below {FIRST_UNSEEN_SEED} belong to the corpus; choose a higher")
    rng = np.random.default_rng(seed)
    task = "mlm_source" if family in ENCODERS else "lm_source"
    recipe = draw_recipe(family, task, "mlm" if family in ENCODERS else "lm", rng)
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
        dropout=min(recipe.dropout, 0.1),
        autocast=False,
        pretrained=0,
    )
