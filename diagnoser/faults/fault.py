"""What a fault is, and the table its operators enter.

A :class:`Fault` is one concrete fault: an operator with its severity, layers and seed. An
:class:`Operator` describes a family of them and owns the function that puts one into a model.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Literal

from torch import nn
from torch.optim import Optimizer

from diagnoser.faults.parts import Anatomy, Block

Value = str | float
Moment = Literal["any", "start"]
Scope = Literal["both", "encoder", "decoder"]

ALL_FAMILIES = ("bert", "gpt2", "llama")
DECODERS = ("gpt2", "llama")


@dataclass(frozen=True)
class Fault:
    """One concrete fault, enough to inject it again.

    ``layers`` is empty where the fault does not sit in layers; ``parameter`` names what ``value``
    is (``factor``), both None where the operator has no severity.
    """

    operator: str
    category: str
    root_cause: str
    layers: tuple[int, ...] = ()
    parameter: str | None = None
    value: Value | None = None
    seed: int = 0


@dataclass
class Injection:
    """What an operator needs while it puts a fault into a model.

    Every change is registered on ``undo``; leaving that stack removes the fault.
    """

    model: nn.Module
    optimizer: Optimizer | None
    fault: Fault
    anatomy: Anatomy
    undo: ExitStack

    @property
    def blocks(self) -> list[Block]:
        """The blocks the fault sits in."""
        return [self.anatomy.blocks[i] for i in self.fault.layers]

    @property
    def number(self) -> float:
        """The severity as a number. Raises ValueError where the fault has none."""
        if self.fault.value is None:
            raise ValueError(f"Fault {self.fault.operator} needs a value; see OPERATORS for them.")
        return float(self.fault.value)

    @property
    def training_optimizer(self) -> Optimizer:
        """The optimizer behind any wrapper. Raises ValueError where none was given."""
        if self.optimizer is None:
            raise ValueError(
                f"Fault {self.fault.operator} acts on the optimizer: pass it to inject()."
            )
        return getattr(self.optimizer, "optimizer", self.optimizer)


Choices = Callable[["Clean"], tuple[Value, ...]]
Apply = Callable[[Injection], None]


@dataclass(frozen=True)
class Clean:
    """The healthy training a fault is drawn for: what severities must differ from.

    ``length`` is the sequence length of the batches in tokens, ``clip`` the gradient clipping
    threshold of the training loop; None where unknown (``clip``: where the loop does not clip).
    """

    anatomy: Anatomy
    optimizer: Optimizer | None = None
    length: int | None = None
    clip: float | None = None


@dataclass(frozen=True)
class Operator:
    """A family of faults: one way in which a root cause comes about.

    ``beyond`` is False for the 52 of taxonomy.csv, True for the further ways; ``happens`` then
    tells where real code does this. ``moment`` is ``start`` where the fault only means something
    from the first step on (initialisation). ``families``: see
    :class:`diagnoser.faults.parts.Anatomy`.
    """

    code: str
    category: str
    root_cause: str
    scope: Scope
    what: str
    layered: bool
    parameter: str | None
    values: tuple[Value, ...]
    families: tuple[str, ...]
    moment: Moment
    apply: Apply = field(repr=False, compare=False)
    choices: Choices | None = field(default=None, repr=False, compare=False)
    requires: Callable[[Anatomy], bool] | None = field(default=None, repr=False, compare=False)
    beyond: bool = False
    happens: str = ""

    def choose_from(self, clean: Clean) -> tuple[Value, ...]:
        """The severities that differ from the healthy training's own."""
        return self.values if self.choices is None else self.choices(clean)

    def fits(self, anatomy: Anatomy) -> bool:
        """Whether the operator can act on this model."""
        if anatomy.family not in self.families:
            return False
        return self.requires is None or self.requires(anatomy)


class Table:
    """The operators of one category, filled by the decorator of :meth:`operator`.

    ``beyond``: they are ways beyond the 52 of taxonomy.csv.
    """

    def __init__(self, category: str, *, beyond: bool = False) -> None:
        self.category = category
        self.beyond = beyond
        self.operators: dict[str, Operator] = {}

    def operator(
        self,
        code: str,
        root_cause: str,
        what: str,
        *,
        scope: Scope = "both",
        layered: bool = True,
        parameter: str | None = None,
        values: tuple[Value, ...] = (),
        families: tuple[str, ...] = ALL_FAMILIES,
        moment: Moment = "any",
        choices: Choices | None = None,
        requires: Callable[[Anatomy], bool] | None = None,
        happens: str = "",
    ) -> Callable[[Apply], Apply]:
        """Enter the decorated function into the table as operator ``code``."""

        def enter(apply: Apply) -> Apply:
            self.operators[code] = Operator(
                code=code,
                category=self.category,
                root_cause=root_cause,
                scope=scope,
                what=what,
                layered=layered,
                parameter=parameter,
                values=values,
                families=families,
                moment=moment,
                apply=apply,
                choices=choices,
                requires=requires,
                beyond=self.beyond,
                happens=happens,
            )
            return apply

        return enter
