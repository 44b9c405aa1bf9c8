"""All operators of all categories."""

from __future__ import annotations

from torch import nn

from diagnoser.faults.embedding import EMBEDDING
from diagnoser.faults.embedding_ways import EMBEDDING_WAYS
from diagnoser.faults.fault import Operator
from diagnoser.faults.ffn import FFN
from diagnoser.faults.ffn_ways import FFN_WAYS
from diagnoser.faults.kernel import KERNEL
from diagnoser.faults.kernel_ways import KERNEL_WAYS
from diagnoser.faults.kv_cache import KV_CACHE
from diagnoser.faults.kv_cache_ways import KV_CACHE_WAYS
from diagnoser.faults.layernorm import LAYERNORM
from diagnoser.faults.layernorm_ways import LAYERNORM_WAYS
from diagnoser.faults.masking import MASKING
from diagnoser.faults.masking_ways import MASKING_WAYS
from diagnoser.faults.output import OUTPUT
from diagnoser.faults.output_ways import OUTPUT_WAYS
from diagnoser.faults.parts import read_anatomy
from diagnoser.faults.positional import POSITIONAL
from diagnoser.faults.positional_ways import POSITIONAL_WAYS
from diagnoser.faults.qkv import QKV
from diagnoser.faults.qkv_ways import QKV_WAYS
from diagnoser.faults.residual import RESIDUAL
from diagnoser.faults.residual_ways import RESIDUAL_WAYS
from diagnoser.faults.score import SCORE
from diagnoser.faults.score_ways import SCORE_WAYS
from diagnoser.faults.variant import VARIANT
from diagnoser.faults.variant_ways import VARIANT_WAYS

_TABLES = (
    MASKING,
    QKV,
    SCORE,
    POSITIONAL,
    KERNEL,
    VARIANT,
    KV_CACHE,
    EMBEDDING,
    FFN,
    LAYERNORM,
    RESIDUAL,
    OUTPUT,
)

_WAYS = (
    MASKING_WAYS,
    QKV_WAYS,
    SCORE_WAYS,
    POSITIONAL_WAYS,
    KERNEL_WAYS,
    VARIANT_WAYS,
    KV_CACHE_WAYS,
    EMBEDDING_WAYS,
    FFN_WAYS,
    LAYERNORM_WAYS,
    RESIDUAL_WAYS,
    OUTPUT_WAYS,
)

OPERATORS: dict[str, Operator] = {
    code: operator for table in (*_TABLES, *_WAYS) for code, operator in table.operators.items()
}
"""Operator code -> operator: the 52 in taxonomy.csv's order of categories, then the ways beyond."""


def ways_of(category: str, root_cause: str) -> tuple[Operator, ...]:
    """All operators of a root cause, those of the 52 first.

    To learn the cause from some and be judged on another, hold one out. Raises ValueError for a
    root cause that no operator has.
    """
    found = tuple(
        operator
        for operator in OPERATORS.values()
        if (operator.category, operator.root_cause) == (category, root_cause)
    )
    if not found:
        raise ValueError(f"No operator has the root cause {category}/{root_cause}; see OPERATORS.")
    return found


def operators_for(model: nn.Module) -> list[Operator]:
    """The operators that can act on this model. Raises ValueError for an unknown family."""
    anatomy = read_anatomy(model)
    return [operator for operator in OPERATORS.values() if operator.fits(anatomy)]
