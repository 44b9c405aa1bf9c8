"""Put a fault into a live model and take it out again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import nn
from torch.optim import Optimizer

from diagnoser.faults.catalogue import OPERATORS
from diagnoser.faults.fault import Fault, Injection
from diagnoser.faults.parts import read_anatomy


@contextmanager
def inject(model: nn.Module, optimizer: Optimizer | None, fault: Fault) -> Iterator[None]:
    """Run the body with ``fault`` in ``model``, at any step of its training.

    At exit every override, attribute and optimizer group is as it was. Parameters the fault
    changed in place get back what it took, and keep what training added meanwhile.
    Raises ValueError where the fault does not fit the model; the model is untouched then.
    """
    operator = OPERATORS.get(fault.operator)
    if operator is None:
        raise ValueError(f"There is no operator {fault.operator!r}; see OPERATORS.")
    anatomy = read_anatomy(model)
    if not operator.fits(anatomy):
        raise ValueError(f"Operator {fault.operator} does not act on this {anatomy.family} model.")
    depth = len(anatomy.blocks)
    if operator.layered and not fault.layers:
        raise ValueError(f"Operator {fault.operator} needs the layers it acts on.")
    if any(not 0 <= layer < depth for layer in fault.layers):
        raise ValueError(f"Fault {fault.operator} names layers {fault.layers} of {depth} layers.")
    if operator.parameter is not None and fault.value is None:
        raise ValueError(f"Operator {fault.operator} needs a value for {operator.parameter}.")
    with ExitStack() as undo:
        with torch.no_grad():
            operator.apply(Injection(model, optimizer, fault, anatomy, undo))
        try:
            yield
        finally:
            with torch.no_grad():
                undo.close()
