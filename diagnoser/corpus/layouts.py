"""Where faults are put into families that :mod:`diagnoser.faults` does not know by itself.

A layout names the parts of a model in the terms of a family whose operators act on them:
its ``family`` says which operators mean something, ``config`` holds what they ask for.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from diagnoser.faults import parts
from diagnoser.faults.parts import Anatomy, Block, Linear, Projection

Layout = Callable[[Any], Anatomy]

bert_like: Layout = parts.bert_like
llama_like: Layout = parts.llama_like


def _rows(holder: Any, name: str, start: int, stop: int) -> Projection:
    return Projection(holder, name, start, stop, transposed=False)


def distilbert(model: Any) -> Anatomy:
    """Blocks with the norms after the sums, no segments, and other names than BERT's."""
    base, config = model.base_model, model.config

    def block(index: int, layer: Any) -> Block:
        attention, ffn = layer.attention, layer.ffn
        query, key, value = (
            _rows(attention, name, 0, config.dim) for name in ("q_lin", "k_lin", "v_lin")
        )
        return Block(
            index=index,
            layer=layer,
            attention=attention,
            heads=config.n_heads,
            query=query,
            key=key,
            value=value,
            ffn_in=(Linear(ffn, "lin1"),),
            ffn_out=Linear(ffn, "lin2"),
            activation=ffn.activation,
            norms=(layer.sa_layer_norm, layer.output_layer_norm),
            residual_dropouts=(ffn.dropout,),
        )

    return Anatomy(
        family="bert",
        config=SimpleNamespace(
            attention_dropout=config.attention_dropout,
            hidden_act=config.activation,
            max_position_embeddings=config.max_position_embeddings,
        ),
        blocks=tuple(block(i, layer) for i, layer in enumerate(base.transformer.layer)),
        embedding=base.embeddings.word_embeddings,
        positions=base.embeddings,
        position_name="position_embeddings",
        segments=None,
        head=parts.head_of(model),
        decoder=False,
    )


def opt(model: Any) -> Anatomy:
    """GPT-2's order with projections apart; learned positions that count the mask."""
    base, config = model.base_model.decoder, model.config

    def block(index: int, layer: Any) -> Block:
        attention = layer.self_attn
        query, key, value = (
            _rows(attention, name, 0, config.hidden_size) for name in ("q_proj", "k_proj", "v_proj")
        )
        return Block(
            index=index,
            layer=layer,
            attention=attention,
            heads=config.num_attention_heads,
            query=query,
            key=key,
            value=value,
            ffn_in=(Linear(layer, "fc1"),),
            ffn_out=Linear(layer, "fc2"),
            activation=layer.activation_fn,
            norms=(layer.self_attn_layer_norm, layer.final_layer_norm),
            residual_dropouts=(),
        )

    return Anatomy(
        family="gpt2",
        config=config,
        blocks=tuple(block(i, layer) for i, layer in enumerate(base.layers)),
        embedding=base.embed_tokens,
        positions=base,
        position_name="embed_positions",
        segments=None,
        head=parts.head_of(model),
        decoder=True,
    )


def phi3(model: Any) -> Anatomy:
    """Llama's blocks with q, k and v in one projection, gate and expansion in another."""
    base, config = model.base_model, model.config
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    rows, few = config.num_attention_heads * size, config.num_key_value_heads * size

    def block(index: int, layer: Any) -> Block:
        attention, mlp = layer.self_attn, layer.mlp
        return Block(
            index=index,
            layer=layer,
            attention=attention,
            heads=config.num_attention_heads,
            query=_rows(attention, "qkv_proj", 0, rows),
            key=_rows(attention, "qkv_proj", rows, rows + few),
            value=_rows(attention, "qkv_proj", rows + few, rows + 2 * few),
            ffn_in=(Linear(mlp, "gate_up_proj"),),
            ffn_out=Linear(mlp, "down_proj"),
            activation=mlp.activation_fn,
            norms=(layer.input_layernorm, layer.post_attention_layernorm),
            residual_dropouts=(),
        )

    return Anatomy(
        family="llama",
        config=config,
        blocks=tuple(block(i, layer) for i, layer in enumerate(base.layers)),
        embedding=base.embed_tokens,
        positions=base,
        position_name="rotary_emb",
        segments=None,
        head=parts.head_of(model),
        decoder=True,
    )


def written_decoder(model: Any) -> Anatomy:
    """GPT-2's order, hand-written: no config, a fused projection that is an ordinary linear."""

    def block(index: int, layer: Any) -> Block:
        attention, width = layer.attn, layer.ln_1.weight.shape[0]
        query, key, value = (
            _rows(attention, "c_attn", i * width, (i + 1) * width) for i in range(3)
        )
        return Block(
            index=index,
            layer=layer,
            attention=attention,
            heads=attention.heads,
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
        config=SimpleNamespace(
            attention_dropout=model.h[0].attn.dropout,
            hidden_act="gelu",
            max_position_embeddings=model.positions,
        ),
        blocks=tuple(block(i, layer) for i, layer in enumerate(model.h)),
        embedding=model.wte,
        positions=model,
        position_name="wpe",
        segments=None,
        head=model.lm_head,
        decoder=True,
    )


def register(model_type: str, layout: Layout) -> None:
    """Let faults be put into models of ``model_type`` (of a hand-written one: its class)."""
    parts.LAYOUTS.setdefault(model_type, layout)
