"""Which experts a router chose for the tokens of a sampled forward, counted while it runs.

The router is the part of a mixture of experts whose weights have a row per expert. What it chose is
read where it is used: in the arguments of the module that holds all experts, or by how many tokens
each expert of a list was called with.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from probe.batch import Batch
from probe.recognition import experts_of, is_linear, weight_of
from probe.rows import Picked

_NORMED = {"mixtral", "gpt_oss"}
"""Architectures that divide the chosen weights by their sum without a setting that says so."""


@dataclass(frozen=True)
class RoutingIntent:
    """What a config says of routing; None where it does not.

    ``normed``: the weights of a token's experts sum to ``scale``. ``plain``: experts are chosen and
    weighed by the softmax of the logits alone. ``noisy``: noise is put on what is routed.
    """

    per_token: int | None = None
    normed: bool | None = None
    scale: float = 1.0
    plain: bool = False
    noisy: bool = False


@dataclass
class Routed:
    """One router's choices. n experts, k a token; t picked tokens.

    ``load`` (n,): how many tokens each expert was given. ``counted`` (n,): how many of them have a
    label that the loss counts, None where that is not known. ``entropy`` 0-d: mean over real tokens
    of the entropy of softmax(logits), in nats. ``into`` (t, d), ``logits`` (t, n), ``chosen``,
    ``weights`` (t, k). ``per_token``: experts a token.
    """

    experts: int
    stacked: nn.Parameter | None = None
    """Weights of all experts, the first dimension theirs."""
    load: torch.Tensor | None = None
    counted: torch.Tensor | None = None
    entropy: torch.Tensor | None = None
    into: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    chosen: torch.Tensor | None = None
    weights: torch.Tensor | None = None
    per_token: float | None = None


def router_of(block: nn.Module) -> nn.Module | None:
    """The router of the block's mixture of experts; None where there is none."""
    owner = experts_of(block)
    held = _experts(owner) if owner is not None else None
    if owner is None or held is None:
        return None
    inside = set(held[0].modules())
    for module in owner.modules():
        if module in inside or module is owner:
            continue
        weight = weight_of(module) if is_linear(module) else getattr(module, "weight", None)
        if isinstance(weight, torch.Tensor) and weight.dim() == 2 and weight.shape[0] == held[1]:
            return module
    return None


def _experts(owner: nn.Module) -> tuple[nn.Module, int] | None:
    """(the module that holds the experts, how many)."""
    for child in owner.children():
        stacked = [p for p in child.parameters(recurse=False) if p.dim() == 3]
        if len(stacked) > 1:
            return child, stacked[0].shape[0]
    lists = [child for child in owner.children() if isinstance(child, nn.ModuleList)]
    return (lists[0], len(lists[0])) if lists else None


def read_routing(root: nn.Module, router: nn.Module) -> RoutingIntent:
    """What the model's config says of this router."""
    config = getattr(root, "config", None)
    if config is None or not hasattr(config, "model_type"):
        return RoutingIntent()
    inner = getattr(config, "get_text_config", None)
    config = inner() if callable(inner) else config
    per_token = getattr(config, "num_experts_per_tok", None)
    normed = getattr(config, "norm_topk_prob", None)
    if normed is None and config.model_type in _NORMED:
        normed = True
    noise = ("router_jitter_noise", "input_jitter_noise", "jitter_noise")
    grouped = (getattr(config, "n_group", None) or 1) > 1
    softmax = getattr(config, "scoring_func", "softmax") == "softmax"
    return RoutingIntent(
        per_token=per_token if isinstance(per_token, int) else None,
        normed=bool(normed) if normed is not None else None,
        scale=float(getattr(config, "routed_scaling_factor", None) or 1.0),
        plain=softmax and not grouped and not any(True for _ in router.buffers()),
        noisy=any(bool(getattr(config, name, 0.0)) for name in noise),
    )


def adds_balance_to_loss(root: nn.Module) -> bool:
    """The config asks for the load-balancing term in the loss that the model returns."""
    config = getattr(root, "config", None)
    return bool(getattr(config, "output_router_logits", False)) and bool(
        getattr(config, "router_aux_loss_coef", 0.0)
    )


class RouterWatch:
    """Hooks on one layer's router and experts for the first forward through them.

    ``run``: calls a function as the probe's own arithmetic, and tells its failure.
    """

    def __init__(
        self,
        owner: nn.Module,
        router: nn.Module,
        given: Callable[[], tuple[Picked, Batch]],
        shifted: bool | None,
        run: Callable[[Callable[[], None]], None],
    ) -> None:
        held = _experts(owner)
        assert held is not None
        module, count = held
        self._given, self._shifted, self._run = given, shifted, run
        self._rows = [0] * count
        self._done = False
        stacked = [p for p in module.parameters(recurse=False) if p.dim() == 3]
        self.routed = Routed(count, max(stacked, key=torch.Tensor.numel) if stacked else None)
        self.handles: list[Any] = [router.register_forward_hook(self._decided)]
        if isinstance(module, nn.ModuleList):
            for at, expert in enumerate(module):
                self.handles.append(expert.register_forward_pre_hook(self._counting(at)))
            self.handles.append(owner.register_forward_hook(self._counted))
        else:
            hook = module.register_forward_pre_hook(self._used, with_kwargs=True)
            self.handles.append(hook)

    def _decided(self, module: nn.Module, args: tuple[Any, ...], out: Any) -> None:
        def read() -> None:
            count = self.routed.experts
            logits = next((t for t in _tensors(out) if t.dim() > 1 and t.shape[-1] == count), None)
            if self.routed.logits is not None or logits is None or not args:
                return
            picked, batch = self._given()
            self.routed.logits, self.routed.into = picked.take(logits), picked.take(args[0])
            flat = logits.detach().reshape(-1, count).float()
            weight = _real(picked, batch, len(flat), flat.device)
            shares = torch.log_softmax(flat, dim=-1)
            entropy = -(shares.exp() * shares).sum(dim=-1)
            self.routed.entropy = (entropy * weight).sum() / weight.sum()

        self._run(read)

    def _used(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        def read() -> None:
            if self.routed.load is not None:
                return
            found = _tensors((*args, *kwargs.values()))
            chosen = next((t for t in found if t.dtype in (torch.int64, torch.int32)), None)
            if chosen is None or chosen.dim() != 2:
                return
            weights = [t for t in found if t.is_floating_point() and t.shape == chosen.shape]
            picked, batch = self._given()
            self.routed.per_token = float(chosen.shape[-1])
            self.routed.chosen = picked.take(chosen)
            self.routed.weights = picked.take(weights[-1]) if weights else None
            real = _real(picked, batch, len(chosen), chosen.device)
            self.routed.load = self._load(chosen, real)
            labelled = _labelled(picked, batch, len(chosen), self._shifted)
            self.routed.counted = self._load(chosen, labelled) if labelled is not None else None

        self._run(read)

    def _load(self, chosen: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        load = weight.new_zeros(self.routed.experts)
        index = chosen.detach().long().clamp(0, self.routed.experts - 1)
        return load.scatter_add_(0, index.flatten(), weight[:, None].expand(index.shape).flatten())

    def _counting(self, at: int) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...]) -> None:
            if not self._done and args and isinstance(args[0], torch.Tensor):
                self._rows[at] += args[0].shape[:-1].numel()

        return hook

    def _counted(self, module: nn.Module, args: tuple[Any, ...], out: Any) -> None:
        def read() -> None:
            first = next(iter(_tensors(args)), None)
            if self._done or first is None:
                return
            self._done = True
            tokens = first.shape[:-1].numel()
            if all(rows == tokens for rows in self._rows):
                return  # every expert sees every token: their weights alone tell
            self.routed.load = torch.tensor(self._rows, dtype=torch.float32)
            self.routed.per_token = sum(self._rows) / max(1, tokens)

        self._run(read)


def _tensors(values: Any) -> list[torch.Tensor]:
    values = values if isinstance(values, (tuple, list)) else (values,)
    return [value for value in values if isinstance(value, torch.Tensor)]


def _flat(picked: Picked, values: torch.Tensor, count: int) -> torch.Tensor | None:
    """(batch, length) -> (tokens,), in the order in which states are flattened."""
    if values.dim() != 2 or values.numel() != count:
        return None
    return (values.t() if picked.sequence_first else values).reshape(-1).float()


def _real(picked: Picked, batch: Batch, count: int, device: torch.device) -> torch.Tensor:
    """(tokens,) 1 at real tokens, 0 at padding."""
    mask = _flat(picked, batch.mask != 0, count) if batch.mask is not None else None
    return mask if mask is not None else torch.ones(count, device=device)


def _labelled(
    picked: Picked, batch: Batch, count: int, shifted: bool | None
) -> torch.Tensor | None:
    """(tokens,) 1 at tokens whose prediction the loss counts."""
    labels = batch.labels
    if labels is None or shifted is None or labels.is_floating_point() or labels.dim() != 2:
        return None
    if shifted:
        labels = F.pad(labels, (0, 1), value=-100)[:, 1:]
    return _flat(picked, labels >= 0, count)
