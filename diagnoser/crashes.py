"""What an exception that ended a training most likely was: the field study's four heuristics.

Pure: works on the strings the probe recorded (:func:`probe.crash.describe`). The figures are the
study's confidences: of the failures that looked so, how many were of the category named.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from diagnoser.taxonomy import categories
from probe.nodes import kind_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from probe.schema import Event

CRASH = "crash"
"""The kind of event that this module reads."""


class Crash(msgspec.Struct, frozen=True):
    """An exception that left the training, and the likely category of its fault."""

    step: int
    text: str
    """What happened, in one line, as in the event log."""
    category: str | None
    """A category of the taxonomy; None where nothing speaks for one."""
    heuristic: int | None
    """Which of the four said so; None where only the place does."""
    reason: str
    """The sentence a person reads; empty without a category."""


class _Heuristic(Struct, frozen=True):
    number: int
    category: str
    pattern: re.Pattern[str]
    reason: str
    by_mask: bool = False
    """The module must have been called with a mask that does not fit its other inputs."""
    anywhere: bool = False
    """Whether the message alone tells that attention is meant."""


def _compiled(*parts: str) -> re.Pattern[str]:
    return re.compile("|".join(parts), re.IGNORECASE | re.DOTALL)


_SIZES = (
    r"size of tensor a .* must match",
    r"expanded size of the tensor",
    r"sizes? .* (?:do not|don't|must) match",
    r"broadcast",
)

_HEURISTICS = (
    _Heuristic(
        4,
        "kernel",
        _compiled(
            r"out of memory",
            r"can't allocate memory",
            r"not enough memory",
            r"no available kernel",
            r"flash.?attention (?:only )?(?:supports|requires)",
            r"no operator found for .memory_efficient_attention",
            r"sequence length .*(?:exceed|larger|longer|greater|support)",
            r"invalid configuration argument",
            r"illegal memory access",
        ),
        "An attention kernel was given more than it takes, in length or in memory: shorten the "
        "sequences or the batch, or choose another kernel (90 % of such failures in the field "
        "study were faults of kernel choice)",
    ),
    _Heuristic(
        2,
        "masking",
        _compiled(
            r"is_causal.*(?:attn_)?mask",
            r"mask.*is_causal",
            r"cache_position",
            r"causal.?mask",
            r"past_key_values?.*(?:length|size|shape|position)",
        ),
        "The causal mask and the positions it is built for disagree: compare the mask's length and "
        "the cache's positions with the tokens of this call (91 % of such failures in the field "
        "study were faults of masking)",
        anywhere=True,
    ),
    _Heuristic(
        3,
        "masking",
        _compiled(
            r"attn_mask|attention.?mask|key_padding_mask|padding.?mask",
            r"mask.*(?:shape|size|dimension|broadcast|dtype)",
            r"(?:nan|inf(?:inite)?)\b.*(?:mask|score|attention)",
            r"(?:mask|score|attention).*\b(?:nan|inf(?:inite)?)\b",
        ),
        "The mask does not fit the scores, or one of them is not finite: compare the mask's shape "
        "and dtype with (batch, heads, queries, keys) (87 % of such failures in the field study "
        "were faults of masking)",
        anywhere=True,
    ),
    _Heuristic(
        3,
        "masking",
        _compiled(*_SIZES),
        "A mask was added to scores of another shape: compare it with (batch, heads, queries, "
        "keys) (87 % of such failures in the field study were faults of masking)",
        by_mask=True,
    ),
    _Heuristic(
        1,
        "qkv",
        _compiled(
            r"shapes cannot be multiplied",
            r"shape '\[.*\]' is invalid for input of size",
            r"divisible by (?:num_heads|n_head)",
            r"expected (?:m1|mat1|self) and (?:m2|mat2).* same dtype",
            r"expected .* (?:scalar type|dtype).* (?:but|found|got)",
            r"query, key,? and value.*(?:dtype|shape|size|dimension)",
            r"(?:batch1|batch2) (?:tensor|dimensions)",
            r"must have the same dtype",
            *_SIZES,
        ),
        "Queries, keys and values do not fit each other in size or float type: compare the "
        "projections' sizes with heads times head size, and their dtypes (93 % of such failures in "
        "the field study were faults of the projections)",
    ),
)

_ATTENTION_NODES = {"qkv", "score", "mask", "attention", "kv_cache", "residual_attention"}
_ATTENTION_WORDS = re.compile(r"attn|attention|sdpa|scaled_dot", re.IGNORECASE)


def read(event: Event) -> Crash | None:
    """Judge a recorded crash; None for any other event. Keys its details lack count as empty."""
    if event.kind != CRASH:
        return None
    details = event.details
    found = _heuristic(details)
    if found is not None:
        return Crash(event.step, event.text, found.category, found.number, found.reason)
    category = _by_place(_node(details))
    reason = ""
    if category is not None:
        reason = (
            f"It died in {details['site']}, which speaks for {category}; none of the patterns of "
            "the field study fits"
        )
    return Crash(event.step, event.text, category, None, reason)


def _heuristic(details: Mapping[str, str]) -> _Heuristic | None:
    said = f"{details.get('type', '')}: {details.get('message', '')}"
    inside = in_attention(details)
    for heuristic in _HEURISTICS:
        if not heuristic.pattern.search(said):
            continue
        if heuristic.by_mask and not mask_is_odd(details.get("inputs", "")):
            continue
        if inside or (heuristic.anywhere and details.get("phase") != "optimizer"):
            return heuristic
    return None


def mask_is_odd(inputs: str) -> bool:
    """Whether a mask is among the inputs whose length is not that of the hidden states beside it.

    ``inputs`` as recorded: ``hidden_states float32 6x28x32; attention_mask bool 6x1x28x27``.
    """
    masks: list[list[int]] = []
    lengths: set[int] = set()
    for name, sizes in _INPUT.findall(inputs):
        shape = [int(size) for size in sizes.split("x")]
        if "mask" in name:
            masks.append(shape)
        elif len(shape) >= 3:
            lengths.add(shape[-2])
    return any(not {*mask[1:][-2:]} <= {*lengths, 1} for mask in masks)


_INPUT = re.compile(r"(\w*) ?\b[a-z]+\d* (\d+(?:x\d+)+)")


def in_attention(details: Mapping[str, str]) -> bool:
    """Whether it died in attention, by its component, module, or what the message names."""
    named = " ".join(details.get(key, "") for key in ("module", "class", "message"))
    return _node(details) in _ATTENTION_NODES or bool(_ATTENTION_WORDS.search(named))


def _node(details: Mapping[str, str]) -> str:
    return kind_of(details.get("site", "").rpartition(".")[2].partition("@")[0])


def _by_place(node: str) -> str | None:
    if not node:
        return None
    if node == "attention":  # its module owns the projections; nothing says which part it was
        return None
    return next((c.name for c in categories().values() if node in c.nodes), None)
