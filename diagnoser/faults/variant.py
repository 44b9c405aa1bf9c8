"""Variant faults: the layer runs another kind of attention than the model is."""

from __future__ import annotations

import torch

from diagnoser.faults.attention_call import AttentionCall, hide_where_not, rewrite_attention
from diagnoser.faults.fault import Injection, Table
from diagnoser.faults.parts import Anatomy

VARIANT = Table("variant")


def _several_heads(anatomy: Anatomy) -> bool:
    return anatomy.blocks[0].heads > 1


@VARIANT.operator(
    "VSH", "variant_configuration", "only one effective head", requires=_several_heads
)
def single_head(injection: Injection) -> None:
    """All heads are computed, only the first one's output is used."""

    def rewrite(call: AttentionCall) -> torch.Tensor:
        result = call.run()
        kept = torch.zeros(result.shape[1], 1, 1, dtype=result.dtype, device=result.device)
        kept[0] = 1.0
        return result * kept

    for block in injection.blocks:
        rewrite_attention(injection.undo, block.attention, rewrite)


@VARIANT.operator(
    "VEC",
    "dynamic_dispatch",
    "causal mask in an encoder layer",
    scope="encoder",
    families=("bert",),
)
def causal_encoder(injection: Injection) -> None:
    """The layer is dispatched as a decoder's: no token sees those after it."""

    def rewrite(call: AttentionCall) -> torch.Tensor:
        if call.mask is None:
            return call.altered(causal=True).run()
        visible, pattern = call.visible(), call.causal_pattern()
        both = pattern if visible is None else visible & pattern
        return call.altered(mask=hide_where_not(both, call.query.dtype)).run()

    for block in injection.blocks:
        rewrite_attention(injection.undo, block.attention, rewrite)
