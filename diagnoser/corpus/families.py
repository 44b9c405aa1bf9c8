"""The families of models the corpus holds. A family is one entry of :data:`FAMILIES`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import nn

from diagnoser.corpus import layouts, shapes
from diagnoser.corpus.layouts import Layout
from diagnoser.corpus.shapes import Shape
from diagnoser.corpus.written import TorchEncoder, WrittenDecoder

if TYPE_CHECKING:
    from diagnoser.corpus.recipe import Recipe

Kind = Literal["encoder", "decoder", "coded", "vision"]
"""``coded``: an encoder and a decoder that reads its states."""
Head = Literal["lm", "mlm", "classes", "seq2seq"]
Padding = Literal["right", "left", "none", "no_mask", "packed"]
Batch = dict[str, torch.Tensor]
Make = Callable[["Recipe", int, int, np.random.Generator], nn.Module]
"""(recipe, classes, positions, generator) -> a model; weights from torch's global generator."""


def _as_they_are(batch: Batch) -> Batch:
    return batch


@dataclass(frozen=True)
class Family:
    """What the corpus must know of a family.

    ``paddings``: how its rows may be batched without harm; several of a kind are drawn as often.
    ``grouped``: query heads may share key heads. ``layout``: where its parts lie, for families that
    :mod:`diagnoser.faults` does not know; None and unknown there: only healthy runs are made.
    ``model_type``: what the layout is known by, where it is not the name. ``without``: categories
    whose faults would mean something else here. ``adapters``: LoRA is tried on it.
    ``arguments``: a batch as what the model takes.
    """

    name: str
    kind: Kind
    heads: Mapping[Head, Make]
    paddings: tuple[Padding, ...] = ("right", "right", "none", "no_mask")
    grouped: bool = False
    layout: Layout | None = None
    model_type: str = ""
    without: frozenset[str] = field(default_factory=frozenset)
    adapters: bool = False
    arguments: Callable[[Batch], Batch] = _as_they_are


def _of_transformers(config: str, shape: Shape, **classes: str) -> Mapping[Head, Make]:
    """Head -> maker, from the names of transformers' classes."""

    def maker(head: str, name: str) -> Make:
        def make(
            recipe: Recipe, labels: int, positions: int, rng: np.random.Generator
        ) -> nn.Module:
            import transformers

            settings = getattr(transformers, config)(**shape(recipe, positions, rng))
            if head == "classes":
                settings.num_labels = labels
            torch.manual_seed(recipe.seed)
            model: nn.Module = getattr(transformers, name)(settings)
            return model

        return make

    return {head: maker(head, name) for head, name in classes.items()}  # type: ignore[misc]


def _encoder(prefix: str, shape: Shape) -> Mapping[Head, Make]:
    return _of_transformers(
        f"{prefix}Config",
        shape,
        mlm=f"{prefix}ForMaskedLM",
        classes=f"{prefix}ForSequenceClassification",
    )


def _decoder(prefix: str, shape: Shape, lm: str = "") -> Mapping[Head, Make]:
    return _of_transformers(
        f"{prefix}Config",
        shape,
        lm=lm or f"{prefix}ForCausalLM",
        classes=f"{prefix}ForSequenceClassification",
    )


def _size(recipe: Recipe, positions: int, rng: np.random.Generator) -> dict[str, Any]:
    size = recipe.size
    return {
        "vocabulary": size.vocabulary,
        "width": size.width,
        "layers": size.layers,
        "heads": size.heads,
        "inner": size.width * int(rng.choice([2, 4])),
        "positions": positions,
        "dropout": recipe.dropout,
    }


def _written_decoder(
    recipe: Recipe, labels: int, positions: int, rng: np.random.Generator
) -> nn.Module:
    settings = _size(recipe, positions, rng)
    torch.manual_seed(recipe.seed)
    return WrittenDecoder(**settings)


def _torch_encoder(
    recipe: Recipe, labels: int, positions: int, rng: np.random.Generator
) -> nn.Module:
    settings = _size(recipe, positions, rng)
    norm_first = bool(rng.random() < 0.5)
    torch.manual_seed(recipe.seed)
    return TorchEncoder(**settings, norm_first=norm_first, classes=labels)


def _shifted(batch: Batch) -> Batch:
    return {"idx": batch["input_ids"][:, :-1], "targets": batch["labels"][:, 1:]}


def _source(batch: Batch) -> Batch:
    hidden = batch["attention_mask"] == 0
    return {"src": batch["input_ids"], "padding_mask": hidden, "labels": batch["labels"]}


_PACKS: tuple[Padding, ...] = ("right", "right", "none", "no_mask", "packed")
_ROTARY: tuple[Padding, ...] = ("right", "right", "none", "no_mask", "left", "packed")
"""Left padding is harmless to rotary positions only."""

_LIST = (
    Family("bert", "encoder", _encoder("Bert", shapes.bert), adapters=True),
    Family("roberta", "encoder", _encoder("Roberta", shapes.roberta), adapters=True),
    Family(
        "electra",
        "encoder",
        _encoder("Electra", shapes.factorised),
        layout=layouts.bert_like,
    ),
    Family("albert", "encoder", _encoder("Albert", shapes.factorised)),
    Family(
        "distilbert",
        "encoder",
        _encoder("DistilBert", shapes.distilbert),
        layout=layouts.distilbert,
    ),
    Family(
        "torch_encoder",
        "encoder",
        {"classes": _torch_encoder},
        paddings=("right", "none"),
        arguments=_source,
    ),
    Family(
        "gpt2", "decoder", _decoder("GPT2", shapes.gpt2, "GPT2LMHeadModel"), _PACKS, adapters=True
    ),
    Family("gpt_neo", "decoder", _decoder("GPTNeo", shapes.gpt_neo)),
    Family("opt", "decoder", _decoder("OPT", shapes.opt), layout=layouts.opt),
    Family("bloom", "decoder", _decoder("Bloom", shapes.bloom)),
    Family(
        "llama",
        "decoder",
        _decoder("Llama", shapes.llama),
        _ROTARY,
        grouped=True,
        adapters=True,
    ),
    Family(
        "mistral",
        "decoder",
        _decoder("Mistral", shapes.mistral),
        _ROTARY,
        grouped=True,
        adapters=True,
    ),
    Family(
        "qwen2",
        "decoder",
        _decoder("Qwen2", shapes.rotary_of_width),
        _ROTARY,
        grouped=True,
        layout=layouts.llama_like,
    ),
    Family("qwen3", "decoder", _decoder("Qwen3", shapes.rotary), _ROTARY, grouped=True),
    Family(
        "gemma",
        "decoder",
        _decoder("Gemma", shapes.rotary),
        _ROTARY,
        grouped=True,
        layout=layouts.llama_like,
        without=frozenset({"layernorm"}),  # its norms scale by 1 + weight: 0 is healthy
    ),
    Family(
        "phi3",
        "decoder",
        _decoder("Phi3", shapes.rotary_of_width),
        _ROTARY,
        grouped=True,
        layout=layouts.phi3,
    ),
    Family(
        "written_decoder",
        "decoder",
        {"lm": _written_decoder},
        paddings=("no_mask",),
        layout=layouts.written_decoder,
        model_type=WrittenDecoder.__name__,
        without=frozenset({"kv_cache"}),  # it has none
        arguments=_shifted,
    ),
    Family(
        "t5",
        "coded",
        _of_transformers("T5Config", shapes.t5, seq2seq="T5ForConditionalGeneration"),
        paddings=("right", "right", "none"),
    ),
    Family(
        "bart",
        "coded",
        _of_transformers("BartConfig", shapes.bart, seq2seq="BartForConditionalGeneration"),
        paddings=("right", "right", "none"),
    ),
    Family(
        "vit",
        "vision",
        _of_transformers("ViTConfig", shapes.vit, classes="ViTForImageClassification"),
        paddings=("no_mask",),
    ),
)

FAMILIES: dict[str, Family] = {family.name: family for family in _LIST}
"""Name -> family, in the order of the list."""

for _family in _LIST:
    if _family.layout is not None:
        layouts.register(_family.model_type or _family.name, _family.layout)
