"""One fault for each contract, put into any family by its parts."""

from __future__ import annotations

import attention_faults
import block_faults
import mask_faults
import optimizer_faults
import outer_faults
from fault_target import Faults, Inapplicable, target

__all__ = ["MADE_FOR", "Inapplicable", "target"]

MADE_FOR: Faults = {
    **outer_faults.MADE_FOR,
    **attention_faults.MADE_FOR,
    **mask_faults.MADE_FOR,
    **block_faults.MADE_FOR,
    **optimizer_faults.MADE_FOR,
}
