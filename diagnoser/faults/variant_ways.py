"""Further ways of variant faults: an unasked window, an encoder run as a prefix decoder."""

from __future__ import annotations

import torch

from diagnoser.faults.attention_call import AttentionCall, hide_where_not, rewrite_attention
from diagnoser.faults.fault import Clean, Injection, Table, Value

VARIANT_WAYS = Table("variant", beyond=True)

_WINDOWS = (2, 4, 8)


def _narrower(clean: Clean) -> tuple[Value, ...]:
    """Windows that hide something: under the sequence's half and the model's own window."""
    length = clean.length or clean.anatomy.max_positions // 2
    own = getattr(clean.anatomy.config, "sliding_window", None) or length
    return tuple(window for window in _WINDOWS if window <= length // 2 and window < own)


@VARIANT_WAYS.operator(
    "VWN",
    "variant_configuration",
    "local window attention where the config says another",
    parameter="window",
    values=_WINDOWS,
    choices=_narrower,
    happens="use_sliding_window or layer_types read wrongly, so that a layer of full attention "
    "runs as a local one (compare transformers#35335, a default that switched a feature off)",
)
def narrow_window(injection: Injection) -> None:
    """A token sees only those less than ``window`` positions away."""
    window = int(injection.number)

    def rewrite(call: AttentionCall) -> torch.Tensor:
        rows, columns = call.query.shape[-2], call.key.shape[-2]
        if rows != columns:
            return call.run()
        places = torch.arange(rows, device=call.query.device)
        near = (places.unsqueeze(-1) - places).abs() < window
        visible = call.visible()
        mask = near if visible is None else near & visible
        return call.altered(mask=hide_where_not(mask, call.query.dtype), causal=False).run()

    for block in injection.blocks:
        rewrite_attention(injection.undo, block.attention, rewrite)


@VARIANT_WAYS.operator(
    "VPX",
    "dynamic_dispatch",
    "an encoder layer runs as a prefix decoder",
    scope="encoder",
    parameter="prefix",
    values=(0.25, 0.5),
    families=("bert",),
    happens="a mask function shared with a prefix language model: a task type or prefix length "
    "that should not be there makes the rest of the sequence causal",
)
def prefix_decoder(injection: Injection) -> None:
    """All tokens see the first share of the sequence; behind it, none sees those after it."""
    share = injection.number

    def rewrite(call: AttentionCall) -> torch.Tensor:
        pattern, columns = call.causal_pattern(), call.key.shape[-2]
        prefix = torch.arange(columns, device=pattern.device) < max(1, round(share * columns))
        allowed = pattern | prefix
        visible = call.visible()
        both = allowed if visible is None else visible & allowed
        return call.altered(mask=hide_where_not(both, call.query.dtype), causal=False).run()

    for block in injection.blocks:
        rewrite_attention(injection.undo, block.attention, rewrite)
