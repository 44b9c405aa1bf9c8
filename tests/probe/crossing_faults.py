"""Faults in the second attention of a decoder's layer 1."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from fault_target import Inapplicable, Target, in_kernel, out_of, rewrite
from mask_faults import mask_dropped, mask_hides_more
from torch import nn

from probe.anatomy import LayerParts


@dataclass
class Crossed(Target):
    """``layer`` is the second attention of the decoder's layer 1, as a layer of its own."""

    @property
    def layer(self) -> LayerParts:
        cross = self.parts.stacks[-1].layers[1].cross
        assert cross is not None
        return cross


def padding_shown(at: Target) -> None:
    """The encoder's padding mask never gets to the attention."""
    if not hasattr(at.layer.attention, "by_hand"):
        mask_dropped(at)
        return
    at.layer.attention.register_forward_pre_hook(
        lambda m, args: (*args[:2], torch.ones_like(args[2]))
    )


def scale_doubled(at: Target) -> None:
    if getattr(at.layer.attention, "by_hand", False):
        rewrite(at, lambda kind, named: named | {"input": named["input"] * 2.0})
        return

    def change(named):
        scale = named.get("scale")
        usual = named["query"].shape[-1] ** -0.5
        return named | {"scale": 2.0 * (usual if scale is None else scale)}

    in_kernel(at, change)


def norm_output(at: Target) -> None:
    out_of(at.layer.norm_attention, lambda out: out * 1.1)


def norm_eps(at: Target) -> None:
    norm = at.layer.norm_attention
    name = "eps" if hasattr(norm, "eps") else "variance_epsilon"
    setattr(norm, name, getattr(norm, name) * 1e6)


def keys_replaced(at: Target) -> None:
    """A projection set anew after the optimizer was made, which does not hold it."""
    attention, key = at.layer.attention, at.layer.key
    if key is None:
        raise Inapplicable
    name = next(name for name, child in attention.named_children() if child is key)
    setattr(attention, name, copy.deepcopy(key))


def values_scaled(at: Target) -> None:
    out_of(at.layer.value, lambda out: out * 1.3)


def sum_scaled(at: Target) -> None:
    """The stream that the next norm reads is not the sum."""
    following: nn.Module | None = at.layer.norm_next
    assert following is not None
    following.register_forward_pre_hook(lambda m, args: (args[0] * 1.2, *args[1:]))


MADE_FOR = {
    "cross_mask/leaked": padding_shown,
    "cross_mask/padding_mass": padding_shown,
    "cross_mask/hidden": mask_hides_more,
    "cross_score/scale_ratio": scale_doubled,
    "cross_qkv/unmoved": keys_replaced,
    "cross_qkv/v_error": values_scaled,
    "norm_cross/formula_error": norm_output,
    "norm_cross/eps_ratio": norm_eps,
    "residual_cross/sum_error": sum_scaled,
}
