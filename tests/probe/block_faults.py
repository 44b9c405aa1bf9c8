"""Faults of norms, feed-forward blocks and residual sums."""

from __future__ import annotations

from collections.abc import Callable

import torch
from fault_target import Faults, Inapplicable, Target, into, out_of, own_group

from probe.anatomy import weight_of


def norm_eps(at: Target) -> None:
    norm = at.layer.norm_ffn
    name = "eps" if hasattr(norm, "eps") else "variance_epsilon"
    setattr(norm, name, getattr(norm, name) * 1e6)


def norm_output(at: Target) -> None:
    out_of(at.layer.norm_ffn, lambda out: out * 1.1)


def gamma_zero(at: Target) -> None:
    at.layer.norm_ffn.weight.data[:8] = 0.0


def gamma_large(at: Target) -> None:
    at.layer.norm_ffn.weight.data.mul_(4.0)


def beta_shifted(at: Target) -> None:
    if getattr(at.layer.norm_ffn, "bias", None) is None:
        raise Inapplicable
    at.layer.norm_ffn.bias.data.add_(1.0)


def norm_decay(at: Target) -> None:
    own_group(at, at.layer.norm_ffn.weight, weight_decay=0.5)


def activation_swapped(at: Target) -> None:
    into(at.layer.contract, torch.tanh)


def neurons_dead(at: Target) -> None:
    def change(x):
        return torch.cat([torch.zeros_like(x[..., :6]), x[..., 6:]], dim=-1)

    into(at.layer.contract, change)


def way_out_zero(at: Target) -> None:
    weight_of(at.layer.contract)[:, :6] = 0.0


def neurons_copied(at: Target) -> None:
    for linear in (at.layer.expand, at.layer.gate):
        if linear is not None:
            weight = weight_of(linear)
            half = weight.shape[0] // 2
            weight[half:] = weight[:half]
            if getattr(linear, "bias", None) is not None:
                linear.bias[half:] = linear.bias[:half]


def linear_changed(at: Target) -> None:
    out_of(at.layer.contract, lambda out: out * 1.1)


def expand_constant(at: Target) -> None:
    at.layer.expand.weight.data.fill_(0.02)


def expand_large(at: Target) -> None:
    at.layer.expand.weight.data.mul_(4.0)


def contract_large(at: Target) -> None:
    at.layer.contract.weight.data.mul_(4.0)


def ffn_decay(at: Target) -> None:
    own_group(at, at.layer.expand.weight, weight_decay=0.3)


def ffn_sum_changed(at: Target) -> None:
    if at.parts.norm_order == "post":
        into(at.layer.norm_ffn, lambda x: x * 1.2)
    else:
        out_of(at.layer.block, lambda out: out * 1.2)


def attention_sum_changed(at: Target) -> None:
    following = at.layer.norm_attention if at.parts.norm_order == "post" else at.layer.norm_next
    into(following, lambda x: x * 1.2)


Sum = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""The stream after a branch, and the branch -> what to hand on instead."""


def _of_ffn_sum(at: Target, change: Sum) -> None:
    """Behind whatever the branch's last module is."""
    last = at.layer.ffn_dropout or at.layer.contract
    handed_on = _with_output_of(last, change)
    if at.parts.norm_order == "post":
        into(at.layer.norm_ffn, handed_on)
    else:
        out_of(at.layer.block, handed_on)


def _of_attention_sum(at: Target, change: Sum) -> None:
    last = at.layer.attention_dropout or at.layer.attention_out
    if at.layer.packed is not None and at.layer.attention_dropout is None:
        last = at.layer.attention
    following = at.layer.norm_attention if at.parts.norm_order == "post" else at.layer.norm_next
    into(following, _with_output_of(last, change))


def _with_output_of(module: torch.nn.Module, change: Sum) -> Callable[[torch.Tensor], torch.Tensor]:
    kept: list[torch.Tensor] = []

    def keep(module, args, out):
        kept.append(out[0] if isinstance(out, tuple) else out)

    module.register_forward_hook(keep)
    return lambda stream: change(stream, kept.pop())


def _branch_scaled(stream: torch.Tensor, branch: torch.Tensor) -> torch.Tensor:
    return stream + 0.5 * branch


def _skip_detached(stream: torch.Tensor, branch: torch.Tensor) -> torch.Tensor:
    return (stream - branch).detach() + branch


def ffn_branch_scaled(at: Target) -> None:
    _of_ffn_sum(at, _branch_scaled)


def attention_branch_scaled(at: Target) -> None:
    _of_attention_sum(at, _branch_scaled)


def ffn_skip_detached(at: Target) -> None:
    _of_ffn_sum(at, _skip_detached)


def attention_skip_detached(at: Target) -> None:
    _of_attention_sum(at, _skip_detached)


def ffn_dropout(at: Target) -> None:
    if at.layer.ffn_dropout is None:
        raise Inapplicable
    at.layer.ffn_dropout.p = 0.5


def residual_dropout(at: Target) -> None:
    if at.layer.attention_dropout is None:
        raise Inapplicable
    at.layer.attention_dropout.p = 0.5


MADE_FOR: Faults = {
    "residual_attention/sum_error": (attention_sum_changed,),
    "residual_attention/skip_gain": (attention_sum_changed,),
    "residual_attention/branch_gain": (attention_branch_scaled,),
    "residual_attention/detached": (attention_skip_detached,),
    "residual_attention/dropout_gap": (residual_dropout,),
    "residual_ffn/sum_error": (ffn_sum_changed,),
    "residual_ffn/skip_gain": (ffn_sum_changed,),
    "residual_ffn/branch_gain": (ffn_branch_scaled,),
    "residual_ffn/detached": (ffn_skip_detached,),
    "residual_ffn/dropout_gap": (ffn_dropout,),
    "norm_ffn/gamma_zero": (gamma_zero,),
    "norm_ffn/formula_error": (norm_output,),
    "norm_ffn/eps_ratio": (norm_eps,),
    "norm_ffn/decay_severity": (norm_decay,),
    "norm_ffn/gamma_gap": (gamma_large,),
    "norm_ffn/beta_shift": (beta_shifted,),
    "ffn/activation_error": (activation_swapped,),
    "ffn/dead_neurons": (neurons_dead,),
    "ffn/linear_error": (linear_changed,),
    "ffn/in_gap": (expand_large,),
    "ffn/out_gap": (contract_large,),
    "ffn/constant_weights": (expand_constant,),
    "ffn/zero_neurons": (way_out_zero,),
    "ffn/equal_neurons": (neurons_copied,),
    "ffn/decay_gap": (ffn_decay,),
}
