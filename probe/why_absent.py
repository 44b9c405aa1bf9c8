"""The sentences that tell why a metric is not measured, by component."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from torch import nn

from probe.adapters import adapters_of, own_parameters
from probe.anatomy import LayerParts, ModelParts
from probe.nodes import kind_of
from probe.sharded import REASON
from probe.shards import is_sharded

if TYPE_CHECKING:
    from probe.absence import Question

MEMORY = "memory"
"""Names the states that cross-attention reads, among the stacks that were given a mask."""

UNSEEN = "nothing in the first sampled forward could be measured for it"

_WITH_GRADIENTS = (
    "grad_norm", "activity", "grad_weight_cosine", "update_ratio", "moved_between",
    "unmoved", "q_update", "k_update", "v_update",
)  # fmt: skip
AT_THE_STEP = (*_WITH_GRADIENTS, "decay_severity", "decay_gap")
LIVE = ("training", "validation", "kv_cache")
"""Nodes that are measured without looking inside a forward."""


def why(ask: Question) -> str:
    """The sentence; empty where the value is still to come."""
    answer = _BY_NODE.get(kind_of(ask.site.node))
    if ask.site.node in LIVE:
        return answer(ask) if answer is not None else ""
    if ask.metric in AT_THE_STEP:
        return _parameters(ask)
    if ask.metric == "untrained":
        return _untrained(ask)
    if answer is None:
        return ""
    if not ask.seen.understood:
        return "no token ids were found among the arguments of the model's forward"
    return answer(ask) or UNSEEN


def _parameters(ask: Question) -> str:
    if ask.metric in ("unmoved", "decay_severity", "decay_gap") and not ask.optimized:
        return "no optimizer was given"
    aside = ask.stack is not None and ask.stack.intent is not None
    if aside and ask.metric in ("unmoved", "grad_norm", "grad_weight_cosine"):
        return "a stack beside the language model may be left unused in part"
    if ask.metric in _OF_TRAINED and _frozen(ask.parts, ask.site.modules):
        return "its parameters are frozen"
    part = ask.metric in ("q_update", "k_update", "v_update")
    if part and ask.layer is not None and (ask.layer.fused or ask.layer.packed):
        return "q, k and v are one parameter"
    if ask.site.node == "positional" and not ask.parts.position_embedding:
        return "" if ask.parts.relative else "rotary positions have no parameters"
    if ask.layer is not None and ask.layer.per_head and kind_of(ask.site.node) == "qkv":
        return _PER_HEAD
    if ask.metric == "decay_gap" and ask.layer is not None and ask.layer.experts is not None:
        return _EXPERTS
    if not ask.site.modules:
        return f"no module was found for {ask.site.name}"
    return ""


_EXPERTS = "the feed-forward part is a choice of experts, which are not read one by one"
_OF_TRAINED = (
    "grad_norm", "activity", "grad_weight_cosine", "unmoved", "decay_severity", "decay_gap",
)  # fmt: skip


def _frozen(parts: ModelParts, paths: Iterable[str]) -> bool:
    """No parameter of these modules trains."""
    modules = [parts.root.get_submodule(path) for path in paths if path]
    parameters = [p for module in modules for _, p in own_parameters(module)]
    return bool(parameters) and not any(p.requires_grad for p in parameters)


def _crossing(ask: Question) -> bool:
    return ask.layer is not None and ask.layer.crossing


_PER_HEAD = "every head is a module of its own; those are not read"


def _unread_adapters(*linears: nn.Module | None) -> str:
    if any(m is not None and adapters_of(m) is None for m in linears):
        return "a projection adds a term of its own, of a kind that is not recomputed"
    return ""


def _attention(ask: Question) -> str:
    if ask.layer is None or ask.call is not None:
        return ""
    if ask.layer.per_head:
        return _PER_HEAD
    if ask.layer.unseen and ask.parts.intent.attention_implementation == "flex_attention":
        return "flex attention: its compiled kernel hides its rows, masks and scores"
    if ask.layer.unseen:
        return "attention runs in a function compiled by itself, which is not looked into"
    return "no call of an attention kernel, nor matmul, softmax, matmul, was seen"


def _embedding(ask: Question) -> str:
    if ask.parts.token_embedding is None:
        return "no token embedding was found"
    if ask.metric == "dropout_gap":
        return "no config states a dropout of the embeddings, or no module of it follows them"
    if ask.metric in ("type_scale", "type_gap"):
        return "the model has no segment embedding, or did not use it"
    if ask.metric in ("lookup_error", "wrong_rows", "wrong_dims"):
        return "the lookup is more than rows of a table, or no token ids were given"
    return "the token embedding was not called with the batch's tokens"


def _positional(ask: Question) -> str:
    parts = ask.parts
    if ask.metric == "sensitivity" and any(map(_in_lists, parts.layers)):
        return _IN_LISTS
    if ask.metric == "rotation_error" and parts.intent.rotary_theta is None:
        return "positions are not rotary, or scaled or partial in a way that is not recomputed"
    if parts.intent.rotary_theta is not None:
        if ask.seen.half:
            return "in 16 bits a position cannot be read back from an angle"
        return "the kernel's q and k do not have the shape of the projections"
    if parts.position_embedding is None:
        return "positions are a bias on the scores, by distance"
    return "the position table was not called with the batch's positions"


def _qkv(ask: Question) -> str:
    if ask.metric == "head_count" and not ask.parts.intent.heads:
        return "no config states the number of heads"
    intent = ask.parts.intent
    grouped = intent.kv_heads != intent.heads or (ask.call is not None and ask.call.grouped)
    if _crossing(ask) and ask.metric in ("cos_qk", "cos_qv", "swapped"):
        return "queries and keys are made of different states"
    if ask.metric == "swapped" and grouped:
        return "query heads outnumber key heads: they cannot be mistaken for each other"
    if ask.metric == "weight_gap":
        return "the run began with trained weights, or there are too few projections to compare"
    layer = ask.layer
    linears = (layer.query, layer.key, layer.value, layer.fused) if layer is not None else ()
    return (
        _unread_adapters(*linears)
        or _attention(ask)
        or "the projections were not called, or have a layout of their own"
    )


def _score(ask: Question) -> str:
    if ask.call is not None and not ask.call.by_hand and ask.metric in ("dropped", "input_error"):
        return "softmax runs inside the kernel"
    if ask.metric == "input_error" and ask.parts.intent.biased_scores:
        return "more than a mask is put on the scores: positions by distance, or a soft cap"
    if ask.metric == "input_error" and ask.call is not None and ask.call.added_to:
        return "another product than that with the keys is added to the scores, rearranged"
    if ask.metric == "scale_ratio" and ask.call is not None:
        return "the intended scale is not known, or softmax's input is not a multiple of q k^T"
    return _attention(ask)


def _mask(ask: Question) -> str:
    stack = ask.stack
    if ask.call is None:
        return _attention(ask)
    if ask.metric == "padding_mass":
        name = MEMORY if _crossing(ask) else stack.name if stack is not None else ""
        return "" if name in ask.seen.masked else "no mask with one entry per token was given"
    if _crossing(ask) and ask.metric in _BY_ORDER:
        return "attention over other states has no order of positions to keep to"
    if ask.metric == "cross_mass":
        return "no position ids were given, which would tell packed documents apart"
    if ask.metric == "future_mass":
        return "the model is not causal"
    if ask.metric == "causal_unasked":
        return "the model is causal"
    if ask.metric == "hidden_later":
        return "no pair is hidden wrongly"
    return ""


_BY_ORDER = ("future_mass", "cross_mass", "causal_unasked", "hidden_near", "hidden_later")


def _of_attention(ask: Question) -> str:
    call, intent = ask.call, ask.parts.intent
    if call is None:
        return _attention(ask)
    if ask.metric == "reference_error" and call.dropout:
        return "dropout changes the attention weights at random"
    if ask.metric == "kernel_changed":
        return "no config asks for an attention implementation that is known here"
    if not call.by_hand and ask.metric == "row_sum_error":
        return "softmax runs inside the kernel"
    if call.by_hand and ask.metric in ("backend_fallback", "precision_gap"):
        return "softmax runs by hand, not in a kernel"
    if ask.metric == "dropout_gap":
        if call.by_hand and call.dropout:
            return "softmax runs by hand, and what follows it is no call of dropout"
        return "nothing states the attention dropout" if intent.attention_dropout is None else ""
    if ask.metric == "head_similarity":
        return "there is one head"
    if ask.metric in ("reaches_output", "dead_heads", "head_balance"):
        return "the output projection was not found, or its input has another size"
    if ask.metric == "out_weight":
        return "the output projection was not found"
    return ""


def _norm(ask: Question) -> str:
    if ask.metric in ("beta_mean", "beta_shift", "beta_spread"):
        return "the norm has no bias"
    if ask.metric == "eps_ratio":
        return "the norm holds no epsilon under a known name"
    if ask.metric == "gamma_gap":
        return "too few norms to compare"
    return "the norm was not called with the batch's tokens, or its epsilon is not known"


def _residual(ask: Question) -> str:
    layer = ask.layer
    if layer is None:
        return ""
    if _in_lists(layer):
        return _IN_LISTS
    if ask.stack is not None and ask.stack.name in ask.seen.unshaped:
        return "the stack's states are not rows of equal length"
    if layer.crossing and (layer.norm_before is None or layer.norm_next is None):
        return "no norms stand before and behind the attention over other states"
    if not layer.crossing and (layer.norm_attention is None or layer.norm_ffn is None):
        return "the block has no norm on each of its branches"
    if not layer.plain_sums:
        return "both branches read the same stream, or a norm reads more than a branch"
    of_ffn = ask.site.node == "residual_ffn"
    drop = layer.ffn_dropout if of_ffn else layer.attention_dropout
    if ask.metric == "dropout_gap":
        if drop is None:
            return "no dropout module closes this branch"
        return "nothing states the dropout of this branch"
    if ask.metric == "detached":
        return "the stream asks for no gradient, or autograd's graph shows no plain sum"
    if ask.metric == "branch_gain" and ask.seen.half:
        return "the branch is too small beside the stream for 16 bits"
    if ask.metric in ("sum_error", "misfit", "skip_gain", "branch_gain"):
        return "dropout of an unstated rate runs as a function, or branch and stream are parallel"
    return ""


def _ffn(ask: Question) -> str:
    if ask.layer is not None and ask.layer.experts is not None:
        return _EXPERTS
    activation = ask.parts.intent.activation
    if ask.metric == "dead_neurons":
        return "the activation is ReLU, which silences neurons, or is not known"
    if ask.metric == "activation_error":
        if activation:
            return f"the config's activation {activation!r} is not known here, or did not run alone"
        return "no config states the activation, and none of the usual ones fits"
    if ask.metric == "equal_neurons" and ask.seen.understood:
        return "too few tokens were sampled, or the contracting linear was not called with them"
    if ask.metric in ("in_gap", "out_gap"):
        return "too few layers to compare"
    if ask.metric in ("in_level", "out_level"):
        return "the attention's own weights were not found"
    return "the feed-forward linears were not called with the batch's tokens"


def _untrained(ask: Question) -> str:
    """Read at the step; empty where it is still to come."""
    if ask.parts.intent.shifted_labels is None or not ask.seen.labels:
        return "which tokens the loss counts is not known"
    held = ask.layer.experts if ask.layer is not None else None
    stacked = [p for p in held.parameters() if p.dim() == 3] if held is not None else []
    if not stacked:
        return "the experts are modules of a list, which are not read one by one"
    if not any(p.requires_grad for p in stacked):
        return "its parameters are frozen"
    return REASON if any(map(is_sharded, stacked)) else ""


def _router(ask: Question) -> str:
    if ask.metric == "count_gap":
        return "no config states the number of experts a token is given to, or it was not seen"
    if ask.metric in ("choice_error", "weight_error", "sum_gap"):
        return "how experts are chosen and weighed is stated nowhere, or not by a plain softmax"
    if ask.metric == "logits_error":
        return "noise is put on what is routed, or the router's logits were not seen"
    return "the router was not called, or every expert was given every token"


def _output(ask: Question) -> str:
    intent = ask.parts.intent
    if ask.metric in ask.seen.effects:
        return ask.seen.effects[ask.metric]
    if ask.parts.head is None:
        return "no output head was found"
    texts = {
        "untied": "head and embedding are not to be tied",
        "size_gap": "no config states the number of classes",
        "weight_gap": "no config states the initial scale",
        "small_rows": "two classes are too few to compare",
        "dropout_gap": "no config states a dropout of the classifier, or no module of it is there",
        "zero_rows": "the head has no rows",
    }
    if ask.metric in texts:
        return texts[ask.metric]
    if ask.metric == "loss_excess" and not ask.seen.loss:
        return "the model returned no loss"
    if ask.metric == "loss_error":
        if not ask.seen.loss:
            return "the model returned no loss"
        if intent.shifted_labels is None:
            return "no config states how labels are aligned, nor what the loss is made of"
        return "labels and logits do not have the shapes of a classification, or are too many"
    if ask.metric == "margin":
        return "no labels were given, or their alignment is not known"
    if ask.metric in ("head_error", "head_gain"):
        return "the head was not called with the batch's tokens"
    return "the model returned no logits of a known shape"


def _cache(ask: Question) -> str:
    if ask.decodes:
        return ""
    if ask.parts.coded:
        return "cached decoding of an encoder-decoder is not compared"
    if len(ask.parts.stacks) > 1:
        return "cached decoding of a model that reads images or sound is not compared"
    if not ask.parts.intent.family:
        return "how a hand-written model decodes is not known"
    return "not a decoder that may cache while training"


def _drift(ask: Question) -> str:
    in_lists = ask.layer is not None and _in_lists(ask.layer)
    return _IN_LISTS if in_lists else "the blocks' outputs were not seen"


def _in_lists(layer: LayerParts) -> bool:
    return isinstance(layer.block, nn.ModuleList)


_IN_LISTS = "attention and feed-forward parts stand in lists: no module gives the stream between"


def _training(ask: Question) -> str:
    if ask.metric == "clip_level":
        return "the gradient norm did not sit at one value: nothing clips it"
    if ask.metric in ("uncovered", "duplicated", "learning_rate") and not ask.optimized:
        return "no optimizer was given"
    if ask.metric == "grad_decay":
        layers, paths = ask.parts.layers, ask.parts.paths
        ends = [layers[at].expand for at in (0, -1)] if len(layers) > 1 else [None]
        if any(end is None or _frozen(ask.parts, [paths.get(end, "")]) for end in ends):
            return "the first or the last layer's feed-forward block is frozen or was not found"
    if ask.metric == "loss" and not ask.seen.loss:
        return "the model returned no loss, and p.log(loss=...) was not called"
    return ""


def _validation(ask: Question) -> str:
    return f"p.validation({ask.metric}=...) was not called"


_BY_NODE: dict[str, Callable[[Question], str]] = {
    "embedding": _embedding,
    "positional": _positional,
    "qkv": _qkv,
    "score": _score,
    "mask": _mask,
    "attention": _of_attention,
    "kv_cache": _cache,
    "residual_attention": _residual,
    "residual_ffn": _residual,
    "norm_attention": _norm,
    "norm_ffn": _norm,
    "norm_final": _norm,
    "ffn": _ffn,
    "router": _router,
    "output": _output,
    "drift": _drift,
    "training": _training,
    "validation": _validation,
}
