"""Faults injected into live transformers models.

The 52 operators of taxonomy.csv, and at least one further way of each root cause.

Draw a fault with :func:`draw`, put it into a model in training with :func:`inject`.
"""

from diagnoser.faults.catalogue import OPERATORS, operators_for, ways_of
from diagnoser.faults.draw import draw
from diagnoser.faults.fault import Fault, Operator
from diagnoser.faults.inject import inject

__all__ = ["OPERATORS", "Fault", "Operator", "draw", "inject", "operators_for", "ways_of"]
