"""Sees attention kernels run, with their arguments, and keeps the few rows that are needed.

A :class:`Recorder` is a ``TorchFunctionMode`` that is entered around each attention module's
forward during a sample. It passes every call on unchanged. Two shapes of attention are understood:
one call of ``scaled_dot_product_attention``, and the by-hand sequence matmul, softmax, matmul. What
``nn.MultiheadAttention`` calls inside is shown by :mod:`probe.inner_calls`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from probe.inner_calls import shown_to
from probe.quiet import quiet
from probe.rows import Picked
from probe.stopwatch import Stopwatch

_KERNEL = F.scaled_dot_product_attention
_ADDING = {torch.baddbmm, torch.Tensor.baddbmm}
_SOFTMAX = {torch.softmax, torch.Tensor.softmax, F.softmax}
_DROPOUT = {F.dropout, torch.dropout}
_MATMUL = {torch.matmul, torch.Tensor.matmul, torch.Tensor.__matmul__, torch.bmm, torch.Tensor.bmm}
_MATMUL |= _ADDING


@dataclass
class AttentionCall:
    """One kernel call, cut down to picked rows (r) and query positions (p); n keys, h heads.

    q, k, v are what the kernel got at the picked positions, (r, h or kv heads, p, d); k and v of
    other states than the queries' at the rows and positions picked of those.
    ``scores`` (r, h, p, n) float32: scaled q k^T without the mask. ``visible`` (r or 1, h or 1, p,
    n) bool. ``weights`` (r, h, p, n) float32. ``output``, ``reference`` (r, h, p, d): what the
    kernel gave, and the float32 reference without dropout. ``hand_scores``: softmax's input where
    it ran by hand; ``terms`` (t, r, h, p, n): other products of the scores' shape, made before it.
    """

    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor
    scores: torch.Tensor
    visible: torch.Tensor
    weights: torch.Tensor
    output: torch.Tensor | None
    reference: torch.Tensor | None
    scale: float
    dropout: float
    by_hand: bool
    hand_scores: torch.Tensor | None
    kernel_dtype: torch.dtype
    score_dtype: torch.dtype
    backend: int
    best_backend: int
    heads: int
    strided: float
    """Share of q, k, v whose last dimension is not contiguous."""
    terms: torch.Tensor | None = None
    added_to: bool = False
    """Another product than q k^T may have been added to the scores by hand, in whatever layout."""


class Recorder(TorchFunctionMode):
    """Records into ``calls``; one recorder per attention module and sample.

    Without ``picked`` it keeps whole keys and values in ``key_values`` instead: for short decoding
    of ``batch`` rows, by which products of three dimensions are told apart.
    ``memory``: where keys and values come from other states than the queries, what is picked of
    those, given their batch, length and device; None where that is not known.
    """

    def __init__(
        self,
        picked: Picked | None,
        watch: Stopwatch,
        memory: Callable[[int, int, torch.device], Picked | None] | None = None,
        batch: int = 0,
    ) -> None:
        super().__init__()
        self._memory = memory
        self._batch = picked.batch if picked is not None else batch
        self.failure: BaseException | None = None
        """What went wrong while recording; whoever entered the mode is to ask."""
        self._stopwatch = watch
        self.calls: list[AttentionCall] = []
        self.count = 0
        self.entered = 0
        self.key_values: list[tuple[torch.Tensor, torch.Tensor]] = []
        self.picked = picked
        self._products: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []
        """Factors and result of the products since the last attention: the scores are the first
        that fits."""
        self._others: list[torch.Tensor] = []
        """Results of all other products since."""
        self._softmax: tuple[torch.Tensor, torch.Tensor] | None = None
        self._raw_weights: torch.Tensor | None = None
        self._rate = 0.0

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.multi_head_attention_forward:
            with shown_to(self.see):
                return func(*args, **kwargs)
        result = func(*args, **kwargs)
        self.see(func, result, args, kwargs)
        return result

    def see(self, func: Any, result: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Record a call that was made. Never raises."""
        try:
            if func is _KERNEL:
                self.count += 1
                with self._stopwatch, quiet():
                    self._see_sdpa(result, *args, **kwargs)
            elif func in _SOFTMAX:
                given = args[0] if args else kwargs["input"]
                self._softmax = (self._with_heads(given), self._with_heads(result))
                self._raw_weights = result
                self._rate = 0.0
            elif func in _DROPOUT:
                self._see_dropout(result, *args, **kwargs)
            elif func in _MATMUL:
                with self._stopwatch, quiet():
                    self._see_matmul(result, *_factors(func, args, kwargs))
            elif func is torch.einsum:
                self._others.append(result.detach())
        except Exception as error:  # the guest never breaks its host
            # Told once out of here: while a mode handles a call it is off the stack and cannot be
            # taken from it.
            self.failure = self.failure or error

    def forget(self) -> None:
        """Let go of what the module made, which is over."""
        self._products, self._others = [], []
        self._softmax = self._raw_weights = None

    def _with_heads(self, tensor: torch.Tensor) -> torch.Tensor:
        """(batch * h, n, m) -> (batch, h, n, m), a view; other shapes as they are."""
        if tensor.dim() != 3 or not self._batch or tensor.shape[0] % self._batch:
            return tensor
        return tensor.detach().unflatten(0, (self._batch, -1))

    def _keep_whole(self, key: torch.Tensor, value: torch.Tensor, scores: torch.Tensor) -> None:
        """Of attention by hand; ``scores`` is softmax's input."""
        self.key_values.append((key.detach().clone(), value.detach().clone()))

    def _cut(
        self, picked: Picked, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
    ) -> tuple[torch.Tensor, ...] | None:
        keys: Picked | None = picked
        if self._memory is not None:
            keys = self._memory(key.shape[0], key.shape[2], key.device)
        return _cut(picked, keys, query, key, value) if keys is not None else None

    def _see_sdpa(
        self,
        out: torch.Tensor,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attn_mask: torch.Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> None:
        if self.picked is None:
            self.key_values.append((key.detach().clone(), value.detach().clone()))
            return
        if self.calls or query.dim() != 4:
            return
        used = query.shape[-1] ** -0.5 if scale is None else float(scale)
        cut = self._cut(self.picked, query, key, value)
        if cut is None:
            return
        q, k, v, k_all, v_all = cut
        scores = _scores(q, k_all) * used
        mask = _rows_of_mask(attn_mask, self.picked, scores.shape)
        visible, added = _visibility(mask, scores, is_causal, self.picked)
        weights = torch.softmax(added, dim=-1).nan_to_num(0.0)
        reference = _weigh(weights, v_all)
        given = _as_run((query, key, value, attn_mask), out.dtype)
        backend, best = _backends(*given, dropout_p, is_causal, scale, enable_gqa)
        self.calls.append(
            AttentionCall(
                q=q,
                k=k,
                v=v,
                scores=scores,
                visible=visible,
                weights=weights,
                output=self.picked.take_heads(out),
                reference=reference,
                scale=used,
                dropout=float(dropout_p),
                by_hand=False,
                hand_scores=None,
                kernel_dtype=query.dtype,
                score_dtype=torch.float32,
                backend=backend,
                best_backend=best,
                heads=query.shape[1],
                strided=_strided(query, key, value),
            )
        )

    def _see_dropout(
        self, out: torch.Tensor, input: torch.Tensor, p: float = 0.5, *rest: bool, **named: bool
    ) -> None:
        """Dropout of the attention weights, called by hand between softmax and matmul."""
        training = named.get("training", named.get("train", rest[0] if rest else True))
        if input is self._raw_weights and training and p > 0.0:
            self._raw_weights, self._rate = out, float(p)

    def _see_matmul(self, out: torch.Tensor, left: Any, right: Any) -> None:
        untouched = left is self._raw_weights
        if isinstance(left, torch.Tensor) and isinstance(right, torch.Tensor):
            left, right = self._with_heads(left), self._with_heads(right)
            out = self._with_heads(out)
        whole = isinstance(left, torch.Tensor) and left.dim() == 4
        if not whole or self._softmax is None or left.shape != self._softmax[1].shape:
            if whole and isinstance(right, torch.Tensor) and right.dim() == 4:
                self._products.append((left, right, out.detach()))
            else:
                self._others.append(out.detach())
            return
        self.count += 1
        hand, weights = self._softmax
        self._softmax = self._raw_weights = None
        products, self._products = self._products, []
        others, self._others = self._others, []
        fitting = [p for p in products if p[2].shape == weights.shape]
        if not fitting:
            return
        query, key = fitting[0][0], fitting[0][1].transpose(-1, -2)
        others += [made for _, _, made in products if made is not fitting[0][2]]
        if self.picked is None:
            self._keep_whole(key, right, hand)
            return
        if self.calls:
            return
        cut = self._cut(self.picked, query, key, right)
        if cut is None:
            return
        q, k, v, k_all, v_all = cut
        raw = _scores(q, k_all)
        picked_hand = self.picked.take_heads(hand)
        picked_weights = self.picked.take_heads(weights)
        if picked_hand is None or picked_weights is None:
            return
        seen = picked_hand.float()
        visible = seen > seen.amax(dim=-1, keepdim=True) - 1e4
        rate = self._rate if untouched else float("nan")
        dropped = rate != 0.0
        reference = None if dropped else _weigh(picked_weights.float(), v_all)
        self.calls.append(
            AttentionCall(
                q=q,
                k=k,
                v=v,
                scores=raw,
                visible=visible,
                weights=picked_weights.float(),
                output=self.picked.take_heads(out),
                reference=reference,
                scale=float("nan"),
                dropout=rate,
                by_hand=True,
                hand_scores=seen,
                kernel_dtype=query.dtype,
                score_dtype=hand.dtype,
                backend=-1,
                best_backend=-1,
                heads=query.shape[1],
                strided=0.0,
                terms=self._terms(self.picked, others, weights.shape),
                added_to=any(_of_pairs(other, weights.shape) for other in others),
            )
        )

    def _terms(
        self, picked: Picked, others: list[torch.Tensor], shape: torch.Size
    ) -> torch.Tensor | None:
        """Products of the scores' shape, (t, r, h, p, n) float32."""
        cut = [picked.take_heads(other) for other in others if other.shape == shape]
        known = [term.float() for term in cut if term is not None]
        return torch.stack(known) if known else None


def _of_pairs(product: torch.Tensor, scores: torch.Size) -> bool:
    """Whether a product may hold a number for every pair of positions, or for every distance, of
    scores (batch, h, n, m), in whatever order."""
    per_query, keys = scores[:-1].numel(), scores[-1]
    return product.numel() in (per_query * keys, per_query * (2 * keys - 1))


def _factors(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
    """What a product multiplies; None for what was not given under a name known here."""
    given = list(args[1:] if func in _ADDING else args)
    names = ("batch1", "batch2") if func in _ADDING else ("input", "other", "mat2")
    given += [kwargs[name] for name in names if name in kwargs]
    return (given[0], given[1]) if len(given) > 1 else (None, None)


def leave(recorders: Iterable[Recorder]) -> None:
    """Take recorders off the stack of modes that were never left: Ctrl-C in a forward runs no hook.

    Other modes are put back in their order.
    """
    ours = {id(recorder) for recorder in recorders}
    found = []
    while torch._C._len_torch_function_stack():
        found.append(torch._C._pop_torch_function_stack())
    for mode in reversed(found):
        if id(mode) not in ours:
            torch._C._push_on_torch_function_stack(mode)


def _strided(*tensors: torch.Tensor) -> float:
    return sum(t.stride(-1) != 1 for t in tensors) / len(tensors)


def _cut(
    picked: Picked, keys: Picked, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
) -> tuple[torch.Tensor, ...] | None:
    """q, k, v at the rows and positions picked of each, and the queries' rows' keys and values."""
    q, k, v = picked.take_heads(query), keys.take_heads(key), keys.take_heads(value)
    if q is None or k is None or v is None:
        return None
    k_all = key.detach().index_select(0, picked.rows)
    v_all = value.detach().index_select(0, picked.rows)
    return q, k, v, k_all, v_all


def _spread_heads(tensor: torch.Tensor, heads: int) -> torch.Tensor:
    """Key/value heads repeated to the number of query heads (grouped-query attention)."""
    own = tensor.shape[1]
    return tensor if own == heads else tensor.repeat_interleave(heads // own, dim=1)


def _scores(q: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    return q.float() @ _spread_heads(keys, q.shape[1]).float().transpose(-1, -2)


def _weigh(weights: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    return weights @ _spread_heads(values, weights.shape[1]).float()


def _rows_of_mask(
    mask: torch.Tensor | None, picked: Picked, shape: torch.Size
) -> torch.Tensor | None:
    """A mask of any broadcastable shape, cut to (r or 1, h or 1, p, n)."""
    if mask is None:
        return None
    mask = mask.detach()
    while mask.dim() < 4:
        mask = mask[None]
    if mask.shape[0] == picked.batch and picked.batch > 1:
        mask = mask.index_select(0, picked.rows)
    if mask.shape[2] == picked.length:
        mask = mask.index_select(2, picked.positions)
    return mask


def _visibility(
    mask: torch.Tensor | None, scores: torch.Tensor, is_causal: bool, picked: Picked
) -> tuple[torch.Tensor, torch.Tensor]:
    """Which pairs may attend, (r or 1, h or 1, p, n); and the scores with the mask added."""
    count, keys = scores.shape[-2:]
    visible = torch.ones(1, 1, count, keys, dtype=torch.bool, device=scores.device)
    if mask is None and not is_causal:
        return visible, scores
    if is_causal:
        visible = torch.arange(keys, device=scores.device) <= picked.positions[:, None]
        visible = visible[None, None]
    added = scores
    if mask is not None and mask.dtype == torch.bool:
        visible = visible & mask
    elif mask is not None:
        added = scores + mask.float()
        visible = visible & (mask.float() > -1e4)
    return visible, added.masked_fill(~visible, float("-inf"))


def _as_run(
    given: tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None], dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """q, k, v and the mask as the kernel itself got them, which ran in its result's ``dtype``:
    autocast casts inside. Where that changes one, of the first row alone, laid out as it was."""
    query, key, value, mask = given
    if query.dtype == key.dtype == value.dtype == dtype:
        return given

    def cast(tensor: torch.Tensor) -> torch.Tensor:
        alone = tensor.detach()[:1] if tensor.dim() == 4 else tensor.detach()
        return alone.to(dtype).requires_grad_(tensor.requires_grad)

    if mask is not None and mask.dtype != torch.bool:
        mask = cast(mask)
    elif mask is not None and mask.dim() == 4:
        mask = mask[:1]
    return cast(query), cast(key), cast(value), mask


def _backends(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    dropout: float,
    causal: bool,
    scale: float | None,
    gqa: bool,
) -> tuple[int, int]:
    """The SDPA backend torch chooses here, and the one it would choose for contiguous inputs with
    every backend allowed. (-1, -1) where this torch cannot tell."""
    choose = getattr(torch, "_fused_sdp_choice", None)
    if choose is None:
        return -1, -1
    chosen = int(choose(query, key, value, mask, dropout, causal, scale=scale, enable_gqa=gqa))
    if chosen != _MATH:
        return chosen, chosen
    shapes = tuple(t.shape[1:] for t in (query, key, value))
    laid = None
    if mask is not None:
        whole = mask[:1] if mask.dim() == 4 else mask
        laid = _Laid(whole.shape, whole.stride(), mask.dtype, mask.requires_grad)
    best = _best(
        shapes,
        laid,
        dropout,
        causal,
        scale=scale,
        enable_gqa=gqa,
        device=query.device,
        dtype=query.dtype,
    )
    return chosen, best


class _Laid(NamedTuple):
    """How a mask lies in memory."""

    shape: torch.Size
    strides: tuple[int, ...]
    dtype: torch.dtype
    trained: bool


@lru_cache(maxsize=64)
def _best(
    shapes: tuple[torch.Size, ...],
    mask: _Laid | None,
    dropout: float,
    causal: bool,
    *,
    scale: float | None,
    enable_gqa: bool,
    device: torch.device,
    dtype: torch.dtype,
) -> int:
    """The backend for contiguous tensors of these shapes, with every backend allowed."""
    # One row decides as the whole batch would, and costs nothing to lay out afresh.
    fresh = [torch.empty((1, *shape), device=device, dtype=dtype) for shape in shapes]
    hidden = None
    if mask is not None:
        hidden = torch.empty_strided(mask.shape, mask.strides, dtype=mask.dtype, device=device)
        hidden.requires_grad_(mask.trained)
    choose: Any = torch._fused_sdp_choice
    with torch.nn.attention.sdpa_kernel(_ALL_BACKENDS):
        return int(choose(*fresh, hidden, dropout, causal, scale=scale, enable_gqa=enable_gqa))


_MATH = 0
_ALL_BACKENDS = [
    torch.nn.attention.SDPBackend.MATH,
    torch.nn.attention.SDPBackend.FLASH_ATTENTION,
    torch.nn.attention.SDPBackend.EFFICIENT_ATTENTION,
    torch.nn.attention.SDPBackend.CUDNN_ATTENTION,
]
