"""All operators of all categories."""

from __future__ import annotations

from torch import nn

from diagnoser.faults.embedding import EMBEDDING
from diagnoser.faults.fault import Operator
from diagnoser.faults.ffn import FFN
from diagnoser.faults.kernel import KERNEL
from diagnoser.faults.kv_cache import KV_CACHE
from diagnoser.faults.layernorm import LAYERNORM
from diagnoser.faults.masking import MASKING
from diagnoser.faults.output import OUTPUT
from diagnoser.faults.parts import read_anatomy
from diagnoser.faults.positional import POSITIONAL
from diagnoser.faults.qkv import QKV
from diagnoser.faults.residual import RESIDUAL
from diagnoser.faults.score import SCORE
from diagnoser.faults.variant import VARIANT

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

OPERATORS: dict[str, Operator] = {
    code: operator for table in _TABLES for code, operator in table.operators.items()
}
"""Operator code -> operator, in taxonomy.csv's order of categories."""


def operators_for(model: nn.Module) -> list[Operator]:
    """The operators that can act on this model. Raises ValueError for an unknown family."""
    anatomy = read_anatomy(model)
    return [operator for operator in OPERATORS.values() if operator.fits(anatomy)]
