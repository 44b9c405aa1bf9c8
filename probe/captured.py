"""What one sampled forward yields: copies of the picked rows, by the module they went through."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import torch

from probe.adapters import Term
from probe.attention_call import AttentionCall
from probe.batch import Batch
from probe.gradient_path import Path
from probe.routing import Routed
from probe.rows import Picked


class State(NamedTuple):
    """Rows of what passed between two modules, (r, p, features), and where its gradient goes."""

    rows: torch.Tensor
    path: Path | None


@dataclass
class Flow:
    """What entered and left a module, at the picked tokens, (r, p, features)."""

    into: torch.Tensor | None = None
    out: torch.Tensor | None = None
    keys: torch.Tensor | None = None
    """Of a packed attention over other states: those, at what was picked of them."""
    terms: list[Term] | None = field(default_factory=list)
    """Of a linear with adapters: what each was given. None where they are of an unknown kind."""
    into_path: Path | None = None
    out_path: Path | None = None

    @property
    def entry(self) -> State | None:
        return State(self.into, self.into_path) if self.into is not None else None

    @property
    def exit(self) -> State | None:
        return State(self.out, self.out_path) if self.out is not None else None


@dataclass
class LayerCapture:
    """What one block did. Every field is None where the part is missing or did not run."""

    block: Flow | None = None
    query: Flow | None = None
    key: Flow | None = None
    value: Flow | None = None
    fused: Flow | None = None
    attention_out: Flow | None = None
    attention_dropout: Flow | None = None
    attention_outlet: Flow | None = None
    packed: Flow | None = None
    norm_attention: Flow | None = None
    norm_ffn: Flow | None = None
    norm_next: Flow | None = None
    norm_before_ffn: Flow | None = None
    attention_last: Flow | None = None
    ffn_last: Flow | None = None
    norm_before: Flow | None = None
    gate: Flow | None = None
    expand: Flow | None = None
    contract: Flow | None = None
    ffn_dropout: Flow | None = None
    ffn_outlet: Flow | None = None
    experts: Flow | None = None
    call: AttentionCall | None = None
    kernel_calls: float = 0.0
    cross: LayerCapture | None = None
    """What its second attention did."""


LAYER_FLOWS = (
    "block", "query", "key", "value", "fused", "packed", "attention_out", "attention_dropout",
    "attention_outlet", "norm_attention", "norm_ffn", "norm_next", "norm_before_ffn", "norm_before",
    "gate", "expand", "contract", "ffn_dropout", "ffn_outlet", "experts", "attention_last",
    "ffn_last",
)  # fmt: skip
"""The fields of :class:`LayerCapture` that are flows, which are the roles of its modules too."""


@dataclass
class Capture:
    """Everything one sampled forward yielded. ``picked``, ``batch``: of the model's token ids."""

    picked: Picked
    batch: Batch
    layers: list[LayerCapture]
    others: dict[str, tuple[Picked, Batch]] = field(default_factory=dict)
    """By name, those of stacks that work on something else: a decoder's tokens, an image. Under an
    empty name those of the only stack, where it is a decoder beside something that is no stack."""
    memory: tuple[Picked, Batch] | None = None
    """Those of the states that cross-attention reads; None where none has run."""
    token_embedding: Flow | None = None
    position_embedding: Flow | None = None
    position_ids: torch.Tensor | None = None
    type_embedding: Flow | None = None
    type_ids: torch.Tensor | None = None
    stream: torch.Tensor | None = None
    """Sum of the embeddings before any norm or dropout, (r, p, d)."""
    final_norms: dict[str, Flow] = field(default_factory=dict)
    """By site."""
    head: Flow | None = None
    routing: dict[str, Routed] = field(default_factory=dict)
    """What routers of experts chose, by site."""
    logits: torch.Tensor | None = None
    """The model's logits; dropped at the end of the forward."""
    loss: torch.Tensor | None = None

    def of_stack(self, stack: str) -> tuple[Picked, Batch]:
        """The picked tokens and the arguments that a stack worked on."""
        stack = "" if stack == "decoder" and stack not in self.others else stack
        return self.others.get(stack, (self.picked, self.batch))

    @property
    def reads_beside(self) -> bool:
        """The model's first tokens are not those that its only stack works on."""
        return "" in self.others

    @property
    def of_output(self) -> tuple[Picked, Batch]:
        """Those that the logits belong to."""
        return self.of_stack("decoder")
