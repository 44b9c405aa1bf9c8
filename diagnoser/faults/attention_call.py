"""One call of the attention kernel, and how a fault rewrites it.

The fault's function mode is entered inside the attention module's forward, so it lies above any
mode entered in a forward pre-hook: an observer there sees the call as altered, as it would see
the call of code with that bug.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode

from diagnoser.faults.override import override_forward


@dataclass(frozen=True)
class AttentionCall:
    """Arguments of ``scaled_dot_product_attention``, named as there but for brevity.

    ``query``, ``key``, ``value``: (batch, heads, length, head width); key and value may have
    fewer heads where ``gqa``. ``mask``: None, bool (True = visible) or additive, broadcastable
    to (batch, heads, queries, keys). ``training``: whether the module is in training mode.
    """

    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    mask: torch.Tensor | None
    dropout: float
    causal: bool
    scale: float | None
    gqa: bool
    training: bool

    def run(self) -> torch.Tensor:
        """Call the kernel."""
        extra: dict[str, Any] = {"enable_gqa": True} if self.gqa else {}
        return F.scaled_dot_product_attention(
            self.query,
            self.key,
            self.value,
            attn_mask=self.mask,
            dropout_p=self.dropout,
            is_causal=self.causal,
            scale=self.scale,
            **extra,
        )

    def altered(self, **changes: Any) -> AttentionCall:
        return replace(self, **changes)

    @property
    def factor(self) -> float:
        """The scale of the scores, 1/√(head width) by default."""
        return self.query.shape[-1] ** -0.5 if self.scale is None else self.scale

    def expanded(self) -> AttentionCall:
        """The same call with one key and value head for each query head."""
        groups = self.query.shape[1] // self.key.shape[1]
        if groups == 1:
            return self.altered(gqa=False)
        return self.altered(
            key=self.key.repeat_interleave(groups, dim=1),
            value=self.value.repeat_interleave(groups, dim=1),
            gqa=False,
        )

    def causal_pattern(self) -> torch.Tensor:
        """(queries, keys) bool, True where the key is not in the query's future.

        Top-left aligned as ``is_causal`` is; for cached decoding (more keys than queries) the
        queries are the last positions.
        """
        rows, columns = self.query.shape[-2], self.key.shape[-2]
        offset = 0 if self.causal else columns - rows
        ones = torch.ones(rows, columns, dtype=torch.bool, device=self.query.device)
        return ones.tril(offset)

    def visible(self) -> torch.Tensor | None:
        """Which keys each query sees: bool, broadcastable to the scores; None where all."""
        if self.mask is None:
            return self.causal_pattern() if self.causal else None
        if self.mask.dtype == torch.bool:
            return self.mask
        return self.mask > torch.finfo(self.mask.dtype).min / 2

    def additive(self) -> torch.Tensor | None:
        """The mask as numbers added to the scores; None where nothing is masked."""
        if self.mask is not None and self.mask.dtype != torch.bool:
            return self.mask
        visible = self.visible()
        return None if visible is None else hide_where_not(visible, self.query.dtype)

    def by_hand(
        self, on_scores: Callable[[torch.Tensor], torch.Tensor] | None = None
    ) -> torch.Tensor:
        """Attention by matrix products and softmax; ``on_scores`` sees the scaled scores."""
        call = self.expanded()
        scores = torch.matmul(call.query, call.key.transpose(-1, -2)) * call.factor
        if on_scores is not None:
            scores = on_scores(scores)
        mask = call.additive()
        if mask is not None:
            # The lowest float32 is -inf in float16, where a fully masked row would be NaN.
            lowest = torch.finfo(scores.dtype).min
            scores = scores + mask.clamp(min=lowest).to(scores.dtype)
        weights = torch.softmax(scores, dim=-1)
        weights = F.dropout(weights, p=call.dropout, training=call.dropout > 0)
        return torch.matmul(weights, call.value)


def hide_where_not(visible: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """An additive mask: 0 where ``visible``, else the dtype's lowest number.

    Rows that see nothing then attend evenly, as code that adds a large negative number does.
    """
    hidden = torch.zeros(visible.shape, dtype=dtype, device=visible.device)
    return hidden.masked_fill(~visible, torch.finfo(dtype).min)


Rewrite = Callable[[AttentionCall], torch.Tensor]

_SIGNATURE = inspect.Signature(
    [
        inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=default)
        for name, default in (
            ("query", None),
            ("key", None),
            ("value", None),
            ("attn_mask", None),
            ("dropout_p", 0.0),
            ("is_causal", False),
            ("scale", None),
            ("enable_gqa", False),
        )
    ]
)


class _RewriteKernelCall(TorchFunctionMode):
    def __init__(self, rewrite: Rewrite, module: nn.Module) -> None:
        super().__init__()
        self._rewrite = rewrite
        self._module = module

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func is not F.scaled_dot_product_attention:
            return func(*args, **kwargs)
        given = _SIGNATURE.bind(*args, **kwargs)
        given.apply_defaults()
        query, key, value, mask, dropout, causal, scale, gqa = given.arguments.values()
        call = AttentionCall(
            query, key, value, mask, dropout, causal, scale, gqa, self._module.training
        )
        return self._rewrite(call)


def rewrite_attention(undo: ExitStack, module: nn.Module, rewrite: Rewrite) -> None:
    """Pass every attention kernel call made in ``module.forward`` through ``rewrite``.

    Raises ValueError where the model does not run ``sdpa`` attention: the call would never come.
    """
    implementation = getattr(getattr(module, "config", None), "_attn_implementation", "sdpa")
    if implementation != "sdpa":
        raise ValueError(
            f"Attention faults need attn_implementation='sdpa'; the model runs {implementation!r}."
        )

    def build(original: Callable[..., Any]) -> Callable[..., Any]:
        def forward(*args: Any, **kwargs: Any) -> Any:
            with _RewriteKernelCall(rewrite, module):
                return original(*args, **kwargs)

        return forward

    override_forward(undo, module, build)
