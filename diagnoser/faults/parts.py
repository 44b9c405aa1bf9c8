"""Where the parts of a transformer block live, per model family and those built alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn


def registered(holder: nn.Module, name: str) -> nn.Module:
    """The submodule registered under ``name``, whatever an override puts before it."""
    module = holder._modules[name]
    if module is None:
        raise ValueError(f"{type(holder).__name__}.{name} is None.")
    return module


@dataclass(frozen=True)
class Projection:
    """The query, key or value projection: rows ``start:stop`` of a linear map's output.

    ``holder`` is the attention module, ``name`` the attribute it calls. ``transposed`` marks
    GPT-2's Conv1D, whose weight is (in, out).
    """

    holder: nn.Module
    name: str
    start: int
    stop: int
    transposed: bool

    @property
    def module(self) -> nn.Module:
        return registered(self.holder, self.name)

    def parameters(self) -> list[tuple[nn.Parameter, tuple[slice, ...]]]:
        """Weight and bias (where there is one), each with the index of this projection's part."""
        rows = slice(self.start, self.stop)
        weight, bias = self.module.weight, getattr(self.module, "bias", None)
        found = [(weight, (slice(None), rows) if self.transposed else (rows,))]
        if bias is not None:
            found.append((bias, (rows,)))
        return found  # type: ignore[return-value]


@dataclass(frozen=True)
class Linear:
    """A linear map and the module that calls it by attribute ``name``."""

    holder: nn.Module
    name: str

    @property
    def module(self) -> nn.Module:
        return registered(self.holder, self.name)

    @property
    def weight(self) -> nn.Parameter:
        return self.module.weight  # type: ignore[return-value]


@dataclass(frozen=True)
class Block:
    """One transformer layer.

    ``attention`` is the module that calls the attention kernel. ``ffn_in`` widens (two maps in a
    gated FFN), ``ffn_out`` narrows. ``norms`` are the attention's and the FFN's.
    """

    index: int
    layer: nn.Module
    attention: nn.Module
    heads: int
    query: Projection
    key: Projection
    value: Projection
    ffn_in: tuple[Linear, ...]
    ffn_out: Linear
    activation: nn.Module
    norms: tuple[nn.Module, nn.Module]
    residual_dropouts: tuple[nn.Dropout, ...]

    @property
    def ffn_parameters(self) -> list[nn.Parameter]:
        return [p for linear in (*self.ffn_in, self.ffn_out) for p in linear.module.parameters()]


@dataclass(frozen=True)
class Anatomy:
    """The parts of a model that faults are put into.

    ``family`` is the one whose layout the model has: RoBERTa counts as BERT, Mistral as Llama.
    ``positions`` is the module that calls the position part by attribute ``position_name``:
    a table of learned positions or a rotary embedding. ``head`` is the output projection.
    """

    family: str
    config: Any
    blocks: tuple[Block, ...]
    embedding: nn.Embedding
    positions: nn.Module
    position_name: str
    segments: nn.Embedding | None
    head: nn.Module
    decoder: bool

    @property
    def rotary(self) -> bool:
        return self.position_name == "rotary_emb"

    @property
    def max_positions(self) -> int:
        """The longest sequence, in tokens, the model is configured for."""
        return int(self.config.max_position_embeddings)

    @property
    def classes(self) -> int:
        """Number of rows of the output projection."""
        return int(self.head.weight.shape[0])  # type: ignore[index]


def head_of(model: Any) -> nn.Module:
    """The linear that makes the logits."""
    for name in ("classifier", "score"):
        found = getattr(model, name, None)
        found = getattr(found, "out_proj", found)
        if isinstance(found, nn.Linear):
            return found
    found = model.get_output_embeddings()
    if not isinstance(found, nn.Linear):
        raise ValueError(
            f"{type(model).__name__} has no output projection; use a model with a task head, "
            "such as BertForSequenceClassification or GPT2LMHeadModel."
        )
    return found


def _whole(holder: nn.Module, name: str) -> Projection:
    linear = registered(holder, name)
    return Projection(holder, name, 0, int(linear.weight.shape[0]), False)  # type: ignore[index]


def bert_like(model: Any) -> Anatomy:
    """Parts of BERT and of models laid out like it."""
    base = model.base_model

    def block(index: int, layer: Any) -> Block:
        attention = layer.attention.self
        return Block(
            index=index,
            layer=layer,
            attention=attention,
            heads=attention.num_attention_heads,
            query=_whole(attention, "query"),
            key=_whole(attention, "key"),
            value=_whole(attention, "value"),
            ffn_in=(Linear(layer.intermediate, "dense"),),
            ffn_out=Linear(layer.output, "dense"),
            activation=layer.intermediate.intermediate_act_fn,
            norms=(layer.attention.output.LayerNorm, layer.output.LayerNorm),
            residual_dropouts=(layer.attention.output.dropout, layer.output.dropout),
        )

    return Anatomy(
        family="bert",
        config=model.config,
        blocks=tuple(block(i, layer) for i, layer in enumerate(base.encoder.layer)),
        embedding=base.embeddings.word_embeddings,
        positions=base.embeddings,
        position_name="position_embeddings",
        segments=base.embeddings.token_type_embeddings,
        head=head_of(model),
        decoder=False,
    )


def gpt2_like(model: Any) -> Anatomy:
    """Parts of GPT-2."""
    base = model.base_model

    def block(index: int, layer: Any) -> Block:
        attention, width = layer.attn, layer.attn.split_size
        query, key, value = (
            Projection(attention, "c_attn", i * width, (i + 1) * width, True) for i in range(3)
        )
        return Block(
            index=index,
            layer=layer,
            attention=attention,
            heads=attention.num_heads,
            query=query,
            key=key,
            value=value,
            ffn_in=(Linear(layer.mlp, "c_fc"),),
            ffn_out=Linear(layer.mlp, "c_proj"),
            activation=layer.mlp.act,
            norms=(layer.ln_1, layer.ln_2),
            residual_dropouts=(attention.resid_dropout, layer.mlp.dropout),
        )

    return Anatomy(
        family="gpt2",
        config=model.config,
        blocks=tuple(block(i, layer) for i, layer in enumerate(base.h)),
        embedding=base.wte,
        positions=base,
        position_name="wpe",
        segments=None,
        head=head_of(model),
        decoder=True,
    )


def llama_like(model: Any) -> Anatomy:
    """Parts of Llama and of models laid out like it."""
    base = model.base_model

    def block(index: int, layer: Any) -> Block:
        attention, mlp = layer.self_attn, layer.mlp
        return Block(
            index=index,
            layer=layer,
            attention=attention,
            heads=attention.config.num_attention_heads,
            query=_whole(attention, "q_proj"),
            key=_whole(attention, "k_proj"),
            value=_whole(attention, "v_proj"),
            ffn_in=(Linear(mlp, "gate_proj"), Linear(mlp, "up_proj")),
            ffn_out=Linear(mlp, "down_proj"),
            activation=mlp.act_fn,
            norms=(layer.input_layernorm, layer.post_attention_layernorm),
            residual_dropouts=(),
        )

    return Anatomy(
        family="llama",
        config=model.config,
        blocks=tuple(block(i, layer) for i, layer in enumerate(base.layers)),
        embedding=base.embed_tokens,
        positions=base,
        position_name="rotary_emb",
        segments=None,
        head=head_of(model),
        decoder=True,
    )


LAYOUTS: dict[str, Callable[[Any], Anatomy]] = {
    "bert": bert_like,
    "roberta": bert_like,
    "gpt2": gpt2_like,
    "llama": llama_like,
    "mistral": llama_like,
    "qwen3": llama_like,
}


def read_anatomy(model: nn.Module) -> Anatomy:
    """Find the parts of a transformers model.

    Raises ValueError for a model of another family or without an output projection.
    """
    family = getattr(getattr(model, "config", None), "model_type", type(model).__name__)
    if family not in LAYOUTS:
        raise ValueError(
            f"Faults can be injected into {', '.join(LAYOUTS)} models of transformers, "
            f"not into {family!r}."
        )
    with torch.no_grad():
        return LAYOUTS[family](model)
