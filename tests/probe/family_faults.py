"""One fault for each contract, put into any family by its parts, at layer 1 of its last stack.

A fault is a function that changes a freshly made model (or its optimizer) for good. It raises
:class:`Inapplicable` where the model has no such part.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import family_models
import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode

from probe.anatomy import LayerParts, ModelParts, find, weight_of
from probe.capture import Capturing, batch_of
from probe.stopwatch import Stopwatch

KERNEL = F.scaled_dot_product_attention
PACKED = F.multi_head_attention_forward
SOFTMAX = (torch.softmax, torch.Tensor.softmax, F.softmax)


class Inapplicable(Exception):
    """The model has nothing that this fault could change."""


@dataclass
class Target:
    """A model with its parts' roles known, and its training's optimizer."""

    model: nn.Module
    parts: ModelParts
    optimizer: torch.optim.Optimizer

    first_stack: bool = False

    @property
    def layer(self) -> LayerParts:
        return self.parts.stacks[0 if self.first_stack else -1].layers[1]


def target(model: nn.Module, family: str, optimizer: torch.optim.Optimizer) -> Target:
    """Settle the roles by one forward; its random numbers do not count."""
    parts = find(model)
    given = family_models.batch(family)
    with torch.random.fork_rng(), torch.no_grad():
        capturing = Capturing(parts, batch_of(parts, (), given), lambda error: None, Stopwatch())
        model(**given)
        capturing.close()
    return Target(model, parts, optimizer)


class _Calls(TorchFunctionMode):
    def __init__(self, change: Callable[[Any, dict[str, Any]], Any]) -> None:
        super().__init__()
        self._change = change

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func is KERNEL:
            names = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")
        elif func is PACKED:
            names = (
                "query", "key", "value", "embed_dim_to_check", "num_heads", "in_proj_weight",
                "in_proj_bias", "bias_k", "bias_v", "add_zero_attn", "dropout_p",
                "out_proj_weight", "out_proj_bias",
            )  # fmt: skip
        elif func in SOFTMAX:
            names = ("input",)
        else:
            return func(*args, **kwargs)
        named = dict(zip(names, args, strict=False)) | kwargs
        rest = args[len(names) :]
        kind = "softmax" if func in SOFTMAX else "kernel" if func is KERNEL else "packed"
        changed = self._change(kind, named)
        if isinstance(changed, Replaced):
            return changed.result(func)
        if kind == "softmax":
            return func(changed.pop("input"), *rest, **changed)
        return func(*rest, **changed)


@dataclass
class Replaced:
    """Instead of a call with other arguments: what ``result`` makes of the function."""

    result: Callable[[Any], Any]


def rewrite(at: Target, change: Callable[[str, dict[str, Any]], Any]) -> None:
    """Pass the attention calls of the layer through ``change(kind, named arguments)``."""
    module = at.layer.attention
    original = module.forward

    def forward(*args, **kwargs):
        with _Calls(change):
            return original(*args, **kwargs)

    module.forward = forward


def in_kernel(at: Target, change: Callable[[dict[str, Any]], Any]) -> None:
    """Only for SDPA that the module calls itself."""
    if at.layer.packed is not None or getattr(at.layer.attention, "by_hand", False):
        raise Inapplicable
    rewrite(at, lambda kind, named: change(named) if kind == "kernel" else named)


def into(module: nn.Module | None, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Change the first argument of a module."""
    if module is None:
        raise Inapplicable
    module.register_forward_pre_hook(lambda m, args: (change(args[0]), *args[1:]))


def out_of(module: nn.Module | None, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Change the result of a module, the first where there are several."""
    if module is None:
        raise Inapplicable
    original = module.forward

    def forward(*args, **kwargs):
        result = original(*args, **kwargs)
        if isinstance(result, tuple):
            return (change(result[0]), *result[1:])
        return change(result)

    module.forward = forward


def _rows(at: Target, part: str) -> list[torch.Tensor]:
    """Weight and bias rows of q, k or v; views that can be written to."""
    layer = at.layer
    place = ("query", "key", "value").index(part)
    single = getattr(layer, part)
    if single is not None:
        pair = [weight_of(single).data, getattr(single, "bias", None)]
        return [t.data for t in pair if t is not None]
    holder = layer.fused or layer.packed
    if holder is None:
        raise Inapplicable
    weight = holder.in_proj_weight if layer.packed is not None else weight_of(holder)
    bias = getattr(holder, "in_proj_bias" if layer.packed is not None else "bias", None)
    return [t.data.chunk(3)[place] for t in (weight, bias) if t is not None]


# -- attention ------------------------------------------------------------------------------------


def padding_mask_dropped(at: Target) -> None:
    at.first_stack = True
    mask_dropped(at)


def mask_dropped(at: Target) -> None:
    def change(kind, named):
        if kind == "softmax":
            return named | {"input": named["input"].clamp_min(-1.0)}
        gone = {"attn_mask": None}
        if kind == "packed":
            return named | gone | {"key_padding_mask": None, "is_causal": False}
        return named | gone | {"is_causal": False}

    rewrite(at, change)


def padding_shown(at: Target) -> None:
    def change(kind, named):
        if kind == "packed":
            return named | {"key_padding_mask": None}
        causal = at.parts.stacks[-1].causal or False
        return named | {"attn_mask": None, "is_causal": bool(causal)}

    rewrite(at, change)


def _hiding(n: int, keys: int, device: torch.device) -> torch.Tensor:
    """True where a pair may be seen: all but each token's view of the third key."""
    shown = torch.ones(n, keys, dtype=torch.bool, device=device)
    shown[3:, 2] = False
    return shown


def mask_hides_more(at: Target) -> None:
    def change(kind, named):
        if kind == "softmax":
            scores = named["input"]
            shown = _hiding(scores.shape[-2], scores.shape[-1], scores.device)
            return named | {"input": scores.masked_fill(~shown, float("-inf"))}
        q, k = named["query"], named["key"]
        if kind == "packed":
            n = q.shape[0]
            hidden = ~_hiding(n, n, q.device)
            given = named.get("attn_mask")
            if given is not None and given.dtype == torch.bool:
                hidden = hidden | given
            elif given is not None:
                hidden = given.masked_fill(hidden, float("-inf"))
            elif named.get("key_padding_mask") is not None:
                hidden = torch.zeros(n, n, device=q.device).masked_fill(hidden, float("-inf"))
            return named | {"attn_mask": hidden, "is_causal": False}
        shown = _hiding(q.shape[-2], k.shape[-2], q.device)
        if named.get("is_causal"):
            shown = shown & torch.ones_like(shown).tril()
        given = named.get("attn_mask")
        if given is not None and given.dtype == torch.bool:
            shown = shown & given
        elif given is not None:
            shown = given.masked_fill(~shown, torch.finfo(given.dtype).min)
        return named | {"attn_mask": shown, "is_causal": False}

    rewrite(at, change)


def causal_in_encoder(at: Target) -> None:
    def change(kind, named):
        q = named["query"]
        n = q.shape[0] if kind == "packed" else q.shape[-2]
        ahead = torch.ones(n, n, dtype=torch.bool, device=q.device).triu(1)
        if kind == "packed":
            hidden = torch.zeros(n, n, device=q.device).masked_fill(ahead, float("-inf"))
            return named | {"attn_mask": hidden}
        given = named.get("attn_mask")
        if given is None:
            return named | {"attn_mask": ~ahead}
        if given.dtype == torch.bool:
            return named | {"attn_mask": given & ~ahead}
        return named | {"attn_mask": given.masked_fill(ahead, torch.finfo(given.dtype).min)}

    if at.parts.intent.causal:
        raise Inapplicable
    at.first_stack = True
    rewrite(at, change)


def scale_doubled(at: Target) -> None:
    def change(kind, named):
        if kind == "softmax":
            return named | {"input": named["input"] * 2.0}
        if kind == "packed":
            raise Inapplicable
        return named | {"query": named["query"] * 2.0}

    if at.layer.packed is not None:
        raise Inapplicable
    rewrite(at, change)


def _by_hand(at: Target) -> None:
    if not getattr(at.layer.attention, "by_hand", False):
        raise Inapplicable


def scores_dropped(at: Target) -> None:
    _by_hand(at)

    def change(kind, named):
        if kind != "softmax":
            return named
        scores = named["input"].clone()
        some = scores[..., ::3, ::4]
        scores[..., ::3, ::4] = torch.where(some > -1e4, 0.0, some)
        return named | {"input": scores}

    rewrite(at, change)


def scores_in_16_bits(at: Target) -> None:
    _by_hand(at)

    def change(kind, named):
        if kind != "softmax":
            return named
        half, rest = named["input"].half(), {k: v for k, v in named.items() if k != "input"}
        return Replaced(lambda func: func(half, **rest).float())

    rewrite(at, change)


def kernel_in_16_bits(at: Target) -> None:
    def change(named):
        half = {name: named[name].bfloat16() for name in ("query", "key", "value")}
        mask = named.get("attn_mask")
        if mask is not None and mask.is_floating_point():
            half["attn_mask"] = mask.bfloat16()
        return Replaced(lambda func: func(**(named | half)).to(named["query"].dtype))

    in_kernel(at, change)


def kernel_by_hand(at: Target) -> None:
    def change(named):
        q, k, v = named["query"], named["key"], named["value"]
        k, v = (t.repeat_interleave(q.shape[1] // t.shape[1], dim=1) for t in (k, v))
        mask = named.get("attn_mask")

        def result(func):
            scale = named.get("scale")
            scores = torch.matmul(q, k.transpose(-1, -2)) * (
                q.shape[-1] ** -0.5 if scale is None else scale
            )
            if named.get("is_causal"):
                n = scores.shape[-1]
                scores = scores.masked_fill(torch.ones(n, n).triu(1).bool(), float("-inf"))
            if mask is not None and mask.dtype == torch.bool:
                scores = scores.masked_fill(~mask, -1e9)
            elif mask is not None:
                scores = scores + mask
            return torch.matmul(torch.softmax(scores, dim=-1), v)

        return Replaced(result)

    in_kernel(at, change)


def kernel_twice(at: Target) -> None:
    def change(named):
        return Replaced(lambda func: 0.5 * (func(**named) + func(**named)))

    in_kernel(at, change)


def keys_strided(at: Target) -> None:
    def change(named):
        key = named["key"].transpose(-1, -2).contiguous().transpose(-1, -2)
        return named | {"key": key}

    in_kernel(at, change)


def attention_dropout(at: Target) -> None:
    def change(kind, named):
        return named if kind == "softmax" else named | {"dropout_p": 0.4}

    if getattr(at.layer.attention, "by_hand", False):
        at.layer.attention.attn_dropout.p = 0.4
        return
    rewrite(at, change)


def output_changed(at: Target) -> None:
    def change(named):
        return Replaced(lambda func: func(**named) * 1.1)

    if at.layer.packed is not None:
        out_of(at.layer.attention, lambda out: out * 1.1)
        return
    if getattr(at.layer.attention, "by_hand", False):
        into(at.layer.attention_out, lambda x: x * 1.1)
        return
    in_kernel(at, change)


def kernel_wrong(at: Target) -> None:
    """The kernel itself gives something else than its arguments say."""
    given = at.layer.attention
    original = given.forward

    def forward(*args, **kwargs):
        kept = F.scaled_dot_product_attention, torch.bmm

        def wrong(*a, **k):
            return kept[0](*a, **k).roll(1, dims=-1)

        def wrong_sum(*a, **k):
            out = kept[1](*a, **k)
            return out.roll(1, dims=-1) if out.shape[-1] == 8 else out

        F.scaled_dot_product_attention, torch.bmm = wrong, wrong_sum
        try:
            return original(*args, **kwargs)
        finally:
            F.scaled_dot_product_attention, torch.bmm = kept

    if at.layer.packed is None:
        raise Inapplicable
    given.forward = forward


def values_changed(at: Target) -> None:
    in_kernel(at, lambda named: named | {"value": named["value"] * 1.2})


def keys_changed(at: Target) -> None:
    in_kernel(at, lambda named: named | {"key": named["key"].roll(1, dims=1) * 1.3})


def queries_changed(at: Target) -> None:
    in_kernel(at, lambda named: named | {"query": named["query"].roll(1, dims=1) * 1.3})


def swapped(at: Target) -> None:
    def change(named):
        if named["query"].shape != named["key"].shape:
            raise Inapplicable
        return named | {"query": named["key"], "key": named["query"]}

    if at.parts.intent.kv_heads not in (None, at.parts.intent.heads):
        raise Inapplicable
    in_kernel(at, change)


def tied_heads(at: Target) -> None:
    for rows in _rows(at, "query"):
        size = at.parts.head_dim_seen
        rows[size : 2 * size] = rows[:size]


def dead_head(at: Target) -> None:
    for rows in _rows(at, "value"):
        rows[: at.parts.head_dim_seen] = 0.0


def query_zero(at: Target) -> None:
    _rows(at, "query")[0].zero_()


def query_small(at: Target) -> None:
    _rows(at, "query")[0].mul_(0.1)


def cached_keys_changed(at: Target) -> None:
    def change(named):
        if named["query"].shape[-2] < named["key"].shape[-2]:
            key, value = named["key"].clone(), named["value"].clone()
            key[:, :, 1], value[:, :, 1] = 0.5, 0.5
            key[:, :, -1] *= 1.5
            return named | {"key": key, "value": value}
        return named

    in_kernel(at, change)


# -- norms, feed-forward, residual ----------------------------------------------------------------


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
    _own_group(at, at.layer.norm_ffn.weight, weight_decay=0.5)


def _own_group(at: Target, parameter: nn.Parameter, **options: float) -> None:
    for group in at.optimizer.param_groups:
        group["params"] = [p for p in group["params"] if p is not parameter]
    at.optimizer.add_param_group({"params": [parameter], **options})


def activation_swapped(at: Target) -> None:
    into(at.layer.contract, torch.tanh)


def neurons_dead(at: Target) -> None:
    def change(x):
        return torch.cat([torch.zeros_like(x[..., :6]), x[..., 6:]], dim=-1)

    into(at.layer.contract, change)


def linear_changed(at: Target) -> None:
    out_of(at.layer.contract, lambda out: out * 1.1)


def expand_constant(at: Target) -> None:
    at.layer.expand.weight.data.fill_(0.02)


def expand_large(at: Target) -> None:
    at.layer.expand.weight.data.mul_(4.0)


def contract_large(at: Target) -> None:
    at.layer.contract.weight.data.mul_(4.0)


def ffn_decay(at: Target) -> None:
    _own_group(at, at.layer.expand.weight, weight_decay=0.3)


def ffn_sum_changed(at: Target) -> None:
    if at.parts.norm_order == "post":
        into(at.layer.norm_ffn, lambda x: x * 1.2)
    else:
        out_of(at.layer.block, lambda out: out * 1.2)


def attention_sum_changed(at: Target) -> None:
    following = at.layer.norm_attention if at.parts.norm_order == "post" else at.layer.norm_next
    into(following, lambda x: x * 1.2)


def ffn_branch_scaled(at: Target) -> None:
    """Behind whatever the branch's last module is."""
    last = at.layer.ffn_dropout or at.layer.contract
    amount: list[torch.Tensor] = []
    last.register_forward_hook(lambda m, args, out: amount.append(out))

    def change(x):
        return x + 0.5 * amount.pop()

    if at.parts.norm_order == "post":
        into(at.layer.norm_ffn, change)
    else:
        out_of(at.layer.block, change)


def attention_branch_scaled(at: Target) -> None:
    last = at.layer.attention_dropout or at.layer.attention_out
    if at.layer.packed is not None and at.layer.attention_dropout is None:
        last = at.layer.attention
    amount: list[torch.Tensor] = []

    def keep(module, args, out):
        amount.append(out[0] if isinstance(out, tuple) else out)

    last.register_forward_hook(keep)
    following = at.layer.norm_attention if at.parts.norm_order == "post" else at.layer.norm_next
    into(following, lambda x: x + 0.5 * amount.pop())


def ffn_dropout(at: Target) -> None:
    if at.layer.ffn_dropout is None:
        raise Inapplicable
    at.layer.ffn_dropout.p = 0.5


def residual_dropout(at: Target) -> None:
    if at.layer.attention_dropout is None:
        raise Inapplicable
    at.layer.attention_dropout.p = 0.5


# -- embedding, positions, output, optimizer ------------------------------------------------------


def rows_zero(at: Target) -> None:
    table = at.parts.token_embedding
    table.weight.data[20:70] = 0.0


def rows_small(at: Target) -> None:
    at.parts.token_embedding.weight.data[20:45] *= 0.05


def dims_zero(at: Target) -> None:
    at.parts.token_embedding.weight.data[:, :5] = 0.0


def lookup_changed(at: Target) -> None:
    out_of(at.parts.token_embedding, lambda out: out * 1.5)


def types_scaled(at: Target) -> None:
    out_of(at.parts.type_embedding, lambda out: out * 3.0)


def positions_stuck(at: Target) -> None:
    into(at.parts.position_embedding, lambda ids: ids // 4)


def positions_off(at: Target) -> None:
    if at.parts.position_embedding is not None:
        into(at.parts.position_embedding, lambda ids: ids + 3)
        return
    rotate(at, lambda places: places + 3)


def positions_missing(at: Target) -> None:
    if at.parts.position_embedding is not None:
        out_of(at.parts.position_embedding, torch.zeros_like)
        return
    rotate(at, torch.zeros_like)


def positions_wrong(at: Target) -> None:
    rotate(at, lambda places: places * 2)


def positions_repeated(at: Target) -> None:
    if at.parts.position_embedding is not None:
        positions_stuck(at)
        return
    rotate(at, lambda places: places // 4)


def rotate(at: Target, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    rotary = next((m for n, m in at.model.named_modules() if n.endswith("rotary_emb")), None)
    if rotary is None:
        raise Inapplicable
    original = rotary.forward

    def forward(x, position_ids, *args, **kwargs):
        return original(x, change(position_ids), *args, **kwargs)

    rotary.forward = forward


def head_scaled(at: Target) -> None:
    out_of(at.parts.head, lambda out: out * 1.5)


def head_rows_zero(at: Target) -> None:
    weight = weight_of(at.parts.head)
    weight.data[: max(1, len(weight) // 10)] = 0.0


def head_rows_small(at: Target) -> None:
    weight = weight_of(at.parts.head)
    if len(weight) <= 2:
        raise Inapplicable
    weight.data[: len(weight) // 10] *= 0.05


def loss_scaled(at: Target) -> None:
    original = at.model.forward

    def forward(*args, **kwargs):
        out = original(*args, **kwargs)
        if isinstance(out, tuple):
            raise Inapplicable
        out.loss = out.loss * 1.2
        return out

    at.model.forward = forward


def left_out(at: Target) -> None:
    parameter = at.layer.contract.weight
    for group in at.optimizer.param_groups:
        group["params"] = [p for p in group["params"] if p is not parameter]


def twice_in_groups(at: Target) -> None:
    group = dict(at.optimizer.param_groups[0], params=[at.layer.contract.weight])
    at.optimizer.param_groups.append(group)


def _still(parameter: nn.Parameter) -> None:
    parameter.register_hook(torch.zeros_like)


def still(at: Target) -> None:
    """Parts of every kind get no gradient any more."""
    layer, parts = at.layer, at.parts
    chosen = [
        layer.expand, layer.norm_attention, layer.norm_ffn, layer.attention_out, parts.head,
        parts.token_embedding, parts.position_embedding, layer.relative_bias,
        at.parts.stacks[-1].norm_final, layer.query, layer.fused,
    ]  # fmt: skip
    for module in chosen:
        if module is not None:
            _still(module.weight)
    for stack in parts.stacks:
        table = stack.layers[0].relative_bias
        if table is not None:
            _still(table.weight)
    if layer.packed is not None:
        _still(layer.packed.in_proj_weight)


MADE_FOR: dict[str, tuple[Callable[[Target], None], ...]] = {
    "embedding/lookup_error": (lookup_changed,),
    "embedding/zero_rows": (rows_zero,),
    "embedding/zero_dims": (dims_zero,),
    "embedding/type_scale": (types_scaled,),
    "embedding/small_rows": (rows_small,),
    "positional/missing": (positions_missing,),
    "positional/index_error": (positions_off,),
    "positional/repeated": (positions_repeated,),
    "positional/offset": (positions_off,),
    "positional/rotation_error": (positions_wrong,),
    "qkv/q_error": (queries_changed,),
    "qkv/k_error": (keys_changed,),
    "qkv/v_error": (values_changed,),
    "qkv/swapped": (swapped,),
    "qkv/tied_heads": (tied_heads,),
    "qkv/tied_outputs": (tied_heads,),
    "qkv/zero_weights": (query_zero,),
    "qkv/weight_gap": (query_small,),
    "score/scale_ratio": (scale_doubled,),
    "score/input_error": (scores_dropped,),
    "score/dropped": (scores_dropped,),
    "score/precision_gap": (scores_in_16_bits,),
    "mask/padding_mass": (padding_mask_dropped,),
    "mask/future_mass": (mask_dropped,),
    "mask/cross_mass": (padding_shown,),
    "mask/leaked": (mask_dropped,),
    "mask/hidden": (mask_hides_more,),
    "mask/causal_unasked": (causal_in_encoder,),
    "attention/dead_heads": (dead_head,),
    "attention/reference_error": (kernel_wrong,),
    "attention/reaches_output": (output_changed,),
    "attention/dropout_gap": (attention_dropout,),
    "attention/kernel_changed": (kernel_by_hand,),
    "attention/kernel_calls": (kernel_twice,),
    "attention/precision_gap": (kernel_in_16_bits,),
    "attention/strided_inputs": (keys_strided,),
    "kv_cache/key_error": (cached_keys_changed,),
    "kv_cache/value_error": (cached_keys_changed,),
    "kv_cache/last_error": (cached_keys_changed,),
    "kv_cache/logits_error": (cached_keys_changed,),
    "residual_attention/sum_error": (attention_sum_changed,),
    "residual_attention/skip_gain": (attention_sum_changed,),
    "residual_attention/branch_gain": (attention_branch_scaled,),
    "residual_attention/dropout_gap": (residual_dropout,),
    "residual_ffn/sum_error": (ffn_sum_changed,),
    "residual_ffn/skip_gain": (ffn_sum_changed,),
    "residual_ffn/branch_gain": (ffn_branch_scaled,),
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
    "ffn/decay_gap": (ffn_decay,),
    "output/head_error": (head_scaled,),
    "output/head_gain": (head_scaled,),
    "output/zero_rows": (head_rows_zero,),
    "output/loss_error": (loss_scaled,),
    "output/small_rows": (head_rows_small,),
    "embedding/unmoved": (still,),
    "positional/unmoved": (still,),
    "qkv/unmoved": (still,),
    "attention/unmoved": (still,),
    "norm_attention/unmoved": (still,),
    "norm_ffn/unmoved": (still,),
    "norm_final/unmoved": (still,),
    "ffn/unmoved": (still,),
    "output/unmoved": (still,),
    "training/uncovered": (left_out,),
    "training/duplicated": (twice_in_groups,),
}
