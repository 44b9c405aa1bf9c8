"""How a broken contract reads. Keyed by (node, metric); an empty node means any.

Fields: ``value``, ``percent``, ``size`` (without sign), ``factor`` (of a log2), ``gain``
(1 + value), ``direction`` (over, under). Contracts without an entry are said by their definition.
"""

from __future__ import annotations

_JUMPED = (
    "the weights' size changed by a factor of {factor} from one sample to the next, far more than "
    "their updates make"
)
_WEIGHTS = (
    "head_weight",
    "in_weight",
    "out_weight",
    "q_weight",
    "k_weight",
    "v_weight",
    "gamma_norm",
)

CONTRACT_PHRASES: dict[tuple[str, str], str] = {
    ("embedding", "lookup_error"): "the output is not the table's rows of the input ids: "
    "relative error {value}",
    ("embedding", "wrong_rows"): "{percent} of the tokens do not get the table's row of their id",
    ("embedding", "wrong_dims"): "{percent} of the dimensions are not those of the table's rows",
    ("embedding", "zero_rows"): "{percent} of the tokens used have an all-zero vector",
    ("embedding", "zero_dims"): "{percent} of the dimensions do not vary between tokens",
    ("embedding", "type_scale"): "segment embeddings are scaled by {factor}",
    ("positional", "missing"): "positions have no effect on the model",
    ("positional", "index_error"): "{percent} of the real tokens have a wrong position index",
    ("positional", "repeated"): "{percent} of the real tokens repeat their predecessor's index",
    ("positional", "offset"): "position indices are {size} {direction} the implied ones on average",
    ("positional", "rotation_error"): "q and k are not rotated by their positions: relative "
    "error {value}",
    ("qkv", "q_error"): "the kernel's q is not input times query weights: relative error {value}",
    ("qkv", "k_error"): "the kernel's k is not input times key weights: relative error {value}",
    ("qkv", "v_error"): "the kernel's v is not input times value weights: relative error {value}",
    ("qkv", "swapped"): "queries and keys have changed places",
    ("qkv", "tied_heads"): "{percent} of the query heads have another head's weights",
    ("qkv", "tied_outputs"): "{percent} of the query heads compute another head's q",
    ("qkv", "head_count"): "the kernel sees {factor} times the configured number of heads",
    ("qkv", "zero_weights"): "{percent} of the q, k and v weight matrices are all zero",
    ("output", "weight_gap"): "the head's weights began {factor} times as large as the config says",
    ("ffn", "in_level"): "the expanding weights began {factor} times as large as the layer's q, k "
    "and v weights",
    **{("", metric): _JUMPED for metric in _WEIGHTS},
    ("", "moved_between"): "the weights moved by {percent} of their size from one sample to the "
    "next, far more than their updates make",
    ("qkv", "weight_gap"): "the smallest of the q, k and v weights is {factor} times the median "
    "of all layers' projections",
    ("attention", "row_sum_error"): "a query's attention weights do not sum to 1: they are off by "
    "{value}",
    ("attention", "strided_inputs"): "{percent} of the kernel's inputs are not contiguous",
    ("", "gamma_gap"): "gamma is {factor} times that of the median norm",
    ("", "beta_shift"): "beta has a mean of {value} times the usual gamma",
    (
        "embedding",
        "small_rows",
    ): "{percent} of the tokens have a vector far smaller than the others",
    ("output", "small_rows"): "{percent} of the classes have weights far smaller than the others",
    ("score", "scale_ratio"): "scores are scaled by {factor} times the intended factor",
    ("score", "input_error"): "softmax does not get the scaled scores plus mask: relative "
    "error {value}",
    ("score", "dropped"): "{percent} of the visible scores are set to 0 before softmax",
    ("score", "precision_gap"): "scores lost {size} bits of precision",
    ("mask", "padding_mass"): "real tokens put {percent} of their attention on padding",
    ("mask", "future_mass"): "tokens put {percent} of their attention on later positions",
    ("mask", "cross_mass"): "{percent} of the attention goes to another packed document",
    ("mask", "leaked"): "{percent} of the pairs that should be hidden are shown",
    ("mask", "hidden"): "{percent} of the pairs that should be shown are hidden",
    ("mask", "causal_unasked"): "later positions are hidden in a bidirectional model",
    ("attention", "dead_heads"): "{percent} of the heads contribute nothing to the output",
    ("attention", "reference_error"): "the kernel's output differs from softmax(q k^T scale + "
    "mask) v: relative error {value}",
    ("attention", "reaches_output"): "what enters the output projection is not the kernel's "
    "output: relative error {value}",
    ("attention", "dropout_gap"): "the kernel's dropout is {size} {direction} the configured one",
    ("attention", "kernel_changed"): "another attention implementation runs than asked for",
    ("attention", "backend_fallback"): "a slower attention backend runs than could be used",
    ("attention", "kernel_calls"): "the kernel is called {factor} times per layer",
    ("attention", "precision_gap"): "the kernel's inputs lost {size} bits of precision",
    ("router", "logits_error"): "the router's logits are not its input times its weights: "
    "relative error {value}",
    ("router", "choice_error"): "{percent} of the tokens go to other experts than those with the "
    "largest logits",
    ("router", "weight_error"): "experts are not weighed as the router's logits imply: relative "
    "error {value}",
    ("router", "sum_gap"): "the weights of a token's experts sum to {size} {direction} what the "
    "config implies",
    ("router", "count_gap"): "a token is given to {factor} times the configured number of experts",
    ("router", "untrained"): "{percent} of the experts that tokens chose get no gradient",
    ("kv_cache", "key_error"): "cached keys differ from fresh ones: relative error {value}",
    ("kv_cache", "value_error"): "cached values differ from fresh ones: relative error {value}",
    ("kv_cache", "length_gap"): "the cache holds {factor} times the positions seen",
    ("kv_cache", "stale_share"): "{percent} of the cached positions repeat another one's key",
    ("kv_cache", "rearranged"): "{percent} of the cached values are another head's at another "
    "position",
    ("kv_cache", "last_error"): "the newest position's key differs from a fresh one: relative "
    "error {value}",
    ("kv_cache", "logits_error"): "logits with the cache differ from those without: relative "
    "error {value}",
    ("kv_cache", "divergence"): "the next-token distribution with the cache differs from that "
    "without by {value} nats",
    ("", "sum_error"): "the stream is not its input plus the branch: relative error {value}",
    ("", "skip_gain"): "the skip path has a gain of {gain}",
    ("", "detached"): "a part of the stream passes no gradient back",
    ("", "branch_gain"): "the branch enters with a gain of {gain}",
    ("residual_attention", "dropout_gap"): "dropout on the branch is {size} {direction} the "
    "config's",
    ("embedding", "dropout_gap"): "dropout on the embeddings is {size} {direction} the config's",
    ("output", "dropout_gap"): "dropout before the classifier is {size} {direction} the config's",
    ("residual_ffn", "dropout_gap"): "dropout on the branch is {size} {direction} the config's",
    ("", "gamma_zero"): "{percent} of gamma is zero",
    ("", "formula_error"): "the norm's output is not its formula: relative error {value}",
    ("", "eps_ratio"): "eps is off by {size} orders of magnitude ({direction})",
    ("", "decay_severity"): "weight decay removes {percent} of the norm's parameters in 1000 steps",
    ("ffn", "activation_error"): "another activation function runs than configured: relative "
    "error {value}",
    ("ffn", "dead_neurons"): "{percent} of the hidden neurons are zero on every token",
    ("ffn", "zero_neurons"): "{percent} of the hidden neurons have no way out: their outgoing "
    "weights are all zero",
    ("ffn", "equal_neurons"): "{percent} of the hidden neurons are copies of another one",
    ("", "grad_weight_cosine"): "the gradient is mostly the weights themselves, as of a penalty on "
    "them: cosine {value}",
    ("training", "grad_limited"): "{percent} of the gradients' elements stand at one limit, as if "
    "clipped one by one",
    ("training", "grad_norm"): "the gradient's norm came to {factor} times what it was clipped to "
    "before",
    ("training", "clip_level"): "gradients are clipped to a norm of {value}",
    ("ffn", "linear_error"): "the linears' output is not input times weights: relative "
    "error {value}",
    ("ffn", "in_gap"): "the expanding weights are {factor} times the median layer's",
    ("ffn", "out_gap"): "the contracting weights are {factor} times the median layer's",
    ("ffn", "constant_weights"): "{percent} of the weight matrices are constant",
    ("ffn", "decay_gap"): "weight decay is {size} {direction} that of the other matrices",
    ("output", "head_error"): "logits are not hidden state times head weights: relative "
    "error {value}",
    ("output", "head_gain"): "logits are scaled by {factor}",
    ("output", "zero_rows"): "{percent} of the classes have all-zero weights",
    ("output", "size_gap"): "there are {size} classes {direction} the config's number",
    ("output", "untied"): "head and embedding should share their weights and do not",
    ("output", "loss_error"): "the loss is not the cross entropy of these logits and labels: "
    "relative error {value}",
    ("output", "padding_effect"): "the outputs at real tokens change by {value} with what stands "
    "in the padding",
    ("output", "future_effect"): "outputs change by {value} with the tokens after them",
    ("output", "packing_effect"): "outputs change by {value} with the tokens of another packed "
    "document",
    (
        "output",
        "batch_effect",
    ): "a row's outputs change by {value} with the other rows of its batch",
    ("output", "trim_effect"): "a row's outputs change by {value} when it runs alone and without "
    "its padding",
    ("output", "position_missing"): "reversing the order of positions changes no output",
    ("output", "context_missing"): "other tokens before, or around, change no output",
    ("", "unmoved"): "{percent} of the parameters should move and do not",
    ("training", "uncovered"): "{percent} of the parameters are in no optimizer group",
    ("training", "duplicated"): "{percent} of the parameters are in several optimizer groups",
}


def layer_list(layers: tuple[int, ...]) -> str:
    """``layer 2``, ``layers 2–4, 7``; empty where there is none."""
    if not layers:
        return ""
    spans: list[list[int]] = []
    for layer in sorted(set(layers)):
        if spans and layer == spans[-1][-1] + 1:
            spans[-1].append(layer)
        else:
            spans.append([layer])
    parts = [str(s[0]) if len(s) == 1 else f"{s[0]}–{s[-1]}" for s in spans]
    return f"layer{'s' if len(set(layers)) > 1 else ''} {', '.join(parts)}"
