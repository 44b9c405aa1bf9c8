"""Output head and loss: logits against the head's weights, loss against cross entropy, confidence."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from probe.anatomy import ModelParts, weight_of
from probe.dropouts import of_classifier
from probe.intent import Intent
from probe.measure.numbers import log2_ratio, relative, rms, spread
from probe.measure.sampled import Sampled, Values, linear
from probe.schema import Metric
from probe.shards import is_sharded

METRICS = (
    Metric(
        "confidence",
        ("output",),
        "share",
        "",
        "mean largest probability",
        "rising",
        source="DEFault++",
    ),
    Metric(
        "entropy",
        ("output",),
        "share",
        "of log classes",
        "mean entropy of the prediction over log of the classes",
        "falling",
        source="DEFault++",
    ),
    Metric(
        "margin",
        ("output",),
        "statistic",
        "logits",
        "mean gap of the label's logit to the strongest other",
        "rising",
        source="DEFault++",
    ),
    Metric(
        "logit_std",
        ("output",),
        "positive",
        "logits",
        "standard deviation over classes, mean over positions",
        "steady",
    ),
    Metric(
        "head_error",
        ("output",),
        "residual",
        "relative",
        "logits against hidden state times the head's weights",
        "rounding",
        contract=True,
        tolerance=1e-4,
    ),
    Metric(
        "head_gain",
        ("output",),
        "signed",
        "log2",
        "scale of the logits against hidden state times the head's weights",
        "0",
        contract=True,
    ),
    Metric(
        "wrong_classes",
        ("output",),
        "share",
        "share",
        "classes whose logits are off from hidden state times the head's weights by more than "
        "rounding",
        "0",
    ),
    Metric(
        "zero_rows",
        ("output",),
        "share",
        "share",
        "rows of the head's weight that are all zero",
        "0",
        contract=True,
    ),
    Metric(
        "head_weight",
        ("output",),
        "positive",
        "",
        "root mean square of the head's weights",
        "steady",
    ),
    Metric(
        "weight_gap",
        ("output",),
        "signed",
        "log2",
        "head's weights' root mean square against the config's initial scale",
        "0 at a random start",
    ),
    Metric(
        "size_gap",
        ("output",),
        "signed",
        "classes",
        "classes of the logits minus those of the config",
        "0",
        contract=True,
    ),
    Metric(
        "untied",
        ("output",),
        "share",
        "0 or 1",
        "the config ties head and embedding, the model does not",
        "0",
        contract=True,
    ),
    Metric(
        "loss_error",
        ("output",),
        "residual",
        "relative",
        "loss against cross entropy of the logits and labels as this architecture aligns them",
        "rounding",
        contract=True,
        tolerance=1e-3,
    ),
    Metric(
        "loss_excess",
        ("output",),
        "statistic",
        "log2",
        "loss over log of the classes",
        "0 at a random start, then negative",
    ),
    Metric(
        "dropout_gap",
        ("output",),
        "signed",
        "probability",
        "dropout before the classifier minus the config's",
        "0",
        source="attach-time fact",
        contract=True,
    ),
    Metric(
        "small_rows",
        ("output",),
        "share",
        "share",
        "rows of the head's weight below a quarter of the median row's norm",
        "0",
        contract=True,
        tolerance=0.02,
    ),
)


_ROUNDING = 0.02
"""More than 16-bit arithmetic leaves between the head's output and what its weights make."""
_MOST_LOGITS = 2**26
"""Above this many logits the loss is not recomputed: a sample may not double the memory."""


def measure(sampled: Sampled) -> Values:
    """Metrics of site ``output``."""
    capture, parts = sampled.capture, sampled.parts
    values: Values = {"dropout_gap": of_classifier(parts).gap}
    if parts.head is not None:
        values |= _head(sampled)
    logits = capture.logits
    if logits is None:
        return values
    if sampled.intent.classes:
        values["size_gap"] = float(logits.shape[-1] - sampled.intent.classes)
    at, labels = _labelled(sampled, logits)
    if at is not None:
        values |= _prediction(at.float(), labels)
    if capture.loss is not None:
        classes = torch.tensor(float(logits.shape[-1]))
        if logits.shape[-1] > 1:
            values["loss_excess"] = torch.log2(capture.loss.float() / classes.log())
        values |= _loss(sampled, logits)
    return values


def _head(sampled: Sampled) -> Values:
    parts, capture = sampled.parts, sampled.capture
    assert parts.head is not None
    weight = weight_of(parts.head).detach()
    stride = max(1, weight.shape[1] // 64)
    values: Values = {
        "head_weight": rms(weight),
        "zero_rows": _zero_rows(sampled, weight[:, ::stride]),
    }
    if len(weight) > 2:
        norms = weight[:, ::stride].float().norm(dim=1)
        values["small_rows"] = (norms < 0.25 * norms.median()).float().mean()
    if sampled.intent.initial_std:
        values["weight_gap"] = torch.log2(rms(weight).clamp_min(1e-9) / sampled.intent.initial_std)
    table = parts.token_embedding
    # A copy that trains in place of a frozen original is meant to be one.
    copied = "modules_to_save" in parts.paths.get(parts.head, "")
    tied = sampled.intent.tied and not copied
    if tied and table is not None and table.weight.shape == weight.shape:
        values["untied"] = float(table.weight.data_ptr() != weight.data_ptr())
    made = linear(capture.head, parts.head)
    if made is None or capture.head is None or capture.head.out is None:
        return values
    seen = capture.head.out
    if capture.logits is not None:
        # A pooled classifier's logits stand beside a head that ran on every token.
        final = sampled.picked.take(capture.logits)
        if final is not None and final.shape[:2] == seen.shape[:2]:
            own, plain = seen, made
            seen, made = final, _made_logits(sampled.intent, made + _bias_beside(parts))
            if not sampled.intent.family and own.shape == seen.shape == plain.shape:
                # What a model that nothing describes makes of its head's output is its own affair.
                right = relative(own, plain, sampled.tokens) < _ROUNDING
                seen, made = torch.where(right, own, seen), torch.where(right, plain, made)
    shared = min(made.shape[-1], seen.shape[-1])
    made, seen = made[..., :shared], seen[..., :shared].float()
    weigh = sampled.tokens
    values["head_error"] = relative(seen, made, weigh)
    values["wrong_classes"] = _wrong_classes(seen * weigh, made * weigh, capture.head.out.dtype)
    values["head_gain"] = log2_ratio((seen * weigh).norm(), (made * weigh).norm())
    return values


def _bias_beside(parts: ModelParts) -> torch.Tensor | float:
    """The bias of a head without one, where the module that holds it has one of its own to add."""
    head = parts.head
    if head is None or head not in parts.paths or getattr(head, "bias", None) is not None:
        return 0.0
    beside = parts.root.get_submodule(parts.paths[head].rpartition(".")[0])
    bias = getattr(beside, "bias", None)
    if not isinstance(bias, nn.Parameter) or is_sharded(bias):
        return 0.0
    if bias.shape != weight_of(head).shape[:1]:
        return 0.0
    return bias.detach().float()


def _made_logits(intent: Intent, made: torch.Tensor) -> torch.Tensor:
    """What the config has the model make of its head's output."""
    made = made * intent.logit_scale
    return intent.logit_cap * torch.tanh(made / intent.logit_cap) if intent.logit_cap else made


def _wrong_classes(seen: torch.Tensor, made: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Share of classes off by more than rounding in ``dtype``; both (rows, positions, classes)."""
    rounding = max(1e-4, 8 * torch.finfo(dtype).eps)
    off = (seen - made).abs().flatten(0, -2).amax(dim=0)
    return (off > rounding * made.abs().amax()).float().mean()


def _zero_rows(sampled: Sampled, weight: torch.Tensor) -> torch.Tensor:
    """Share of zero rows; the padding token's row, which a tied embedding keeps at 0, aside."""
    zero = (weight.abs().amax(dim=1) == 0).float()
    pad, table = sampled.intent.pad_token, sampled.parts.token_embedding
    if pad is not None and table is not None and len(weight) == table.num_embeddings > pad >= 0:
        zero = torch.cat([zero[:pad], zero[pad + 1 :]])
    return zero.mean()


def _labelled(
    sampled: Sampled, logits: torch.Tensor
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """Logits (m, classes) and labels (m,) with -100 where none, as this architecture aligns them."""
    picked, labels = sampled.picked, sampled.batch.labels
    if logits.dim() == 2:
        fits = labels is not None and labels.dim() == 1 and not labels.is_floating_point()
        return logits.detach(), labels if fits else None
    at = picked.take(logits)
    if at is None:
        return None, None
    if labels is None or labels.dim() != 2 or labels.shape[1] != picked.length:
        return at.flatten(0, 1), None
    if sampled.intent.shifted_labels:
        labels = F.pad(labels, (0, 1), value=-100)[:, 1:]
    chosen = picked.take_ids(labels)
    return at.flatten(0, 1), chosen.flatten() if chosen is not None else None


def _prediction(logits: torch.Tensor, labels: torch.Tensor | None) -> Values:
    log_p = torch.log_softmax(logits, dim=-1)
    p = log_p.exp()
    classes = logits.shape[-1]
    if classes < 2:
        return {}
    weight = torch.ones(len(logits), device=logits.device)
    values: Values = {}
    if labels is not None:
        weight = (labels >= 0).float()
        index = labels.clamp(0, classes - 1)[:, None]
        own = logits.gather(1, index)[:, 0]
        others = logits.scatter(1, index, -math.inf).amax(dim=-1)
        values["margin"] = ((own - others) * weight).sum() / weight.sum()
    total = weight.sum()
    values |= {
        "confidence": (p.amax(dim=-1) * weight).sum() / total,
        "entropy": (-(p * log_p).sum(dim=-1) / math.log(classes) * weight).sum() / total,
        "logit_std": (spread(logits, -1) * weight).sum() / total,
    }
    return values


def _loss(sampled: Sampled, logits: torch.Tensor) -> Values:
    labels, loss = sampled.batch.labels, sampled.capture.loss
    shift = sampled.intent.shifted_labels
    if (
        labels is None
        or labels.is_floating_point()
        or shift is None
        or logits.numel() > _MOST_LOGITS
    ):
        return {}
    if logits.shape[:-1] != labels.shape or logits.shape[-1] < 2:
        return {}
    flat = logits.detach().float().flatten(0, -2)
    if shift:
        labels = F.pad(labels, (0, 1), value=-100)[..., 1:]
    assert loss is not None
    # A label outside the classes would raise on a GPU long after this call.
    safe = torch.where(labels < logits.shape[-1], labels, torch.full_like(labels, -100)).flatten()
    items = sampled.batch.items
    if items is None:
        made = F.cross_entropy(flat, safe, ignore_index=-100)
    else:
        made = F.cross_entropy(flat, safe, ignore_index=-100, reduction="sum") / items
    return {"loss_error": (loss.float() - made).abs() / torch.maximum(loss.float().abs(), made)}
