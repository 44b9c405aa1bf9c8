"""What all measurements of one sampled forward share: the capture and the mask it implies."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from probe.anatomy import LayerParts, ModelParts, weight_of
from probe.capture import Capture, Flow, LayerCapture
from probe.intent import Intent

Values = dict[str, "torch.Tensor | float"]


@dataclass
class Projections:
    """q, k, v as the weights say, at the picked tokens, (r, p, heads * head_dim) each."""

    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor
    weights: tuple[torch.Tensor, torch.Tensor, torch.Tensor]
    dtype: torch.dtype


@dataclass
class Sampled:
    """One sampled forward, ready to be measured.

    ``implied`` (r, p, n) bool: which keys a query should see; ``padding`` (r, n) bool: padding keys;
    ``documents`` (r, n) ints, or None where nothing is packed; ``causal`` 0-d bool tensor or None
    where neither config nor peers tell.
    """

    parts: ModelParts
    capture: Capture
    implied: torch.Tensor
    padding: torch.Tensor | None
    documents: torch.Tensor | None
    causal: torch.Tensor | None

    @property
    def intent(self) -> Intent:
        return self.parts.intent

    @property
    def valid(self) -> torch.Tensor:
        """(r, p) 1.0 at real tokens."""
        return self.capture.picked.valid

    @property
    def tokens(self) -> torch.Tensor:
        """(r, p, 1), to weigh hidden states."""
        return self.valid[..., None]


def prepare(parts: ModelParts, capture: Capture) -> Sampled:
    """Work out the implied mask from attention_mask, causality and packed position ids."""
    picked, batch = capture.picked, capture.batch
    device = picked.rows.device
    keys = torch.arange(picked.length, device=device)
    implied = torch.ones(
        len(picked.rows), len(picked.positions), picked.length, dtype=torch.bool, device=device
    )
    padding = None
    if batch.mask is not None:
        padding = batch.mask.index_select(0, picked.rows) == 0
        implied = implied & ~padding[:, None, :]
    later = keys[None, :] > picked.positions[:, None]
    causal = _causal(parts, capture, later)
    if causal is not None:
        implied = implied & ~(later[None] & causal)
    documents = _documents(capture)
    if documents is not None:
        own = documents[:, picked.positions]
        implied = implied & (own[:, :, None] == documents[:, None, :])
    return Sampled(parts, capture, implied, padding, documents, causal)


def _causal(parts: ModelParts, capture: Capture, later: torch.Tensor) -> torch.Tensor | None:
    if parts.intent.causal is not None:
        return torch.tensor(parts.intent.causal, device=later.device)
    calls = [layer.call for layer in capture.layers if layer.call is not None]
    if not calls or not parts.layers:
        return None
    # Nothing states it: what most layers do is what the others should do.
    shown = torch.stack([(call.visible & later).float().sum() for call in calls])
    return shown.median() == 0


def _documents(capture: Capture) -> torch.Tensor | None:
    """Packed documents by position ids that start again at 0; only where the caller gave them."""
    positions = capture.batch.positions
    if positions is None or positions.dim() != 2 or positions.shape[0] != capture.batch.size:
        return None
    return (positions.index_select(0, capture.picked.rows) == 0).cumsum(dim=1)


def linear(flow: Flow | None, module: torch.nn.Module | None) -> torch.Tensor | None:
    """What ``module``'s weights make of its input, float32; None where it was not seen."""
    if flow is None or flow.into is None or module is None:
        return None
    weight = weight_of(module)
    if flow.into.shape[-1] != weight.shape[1]:
        return None
    out = flow.into.float() @ weight.detach().float().t()
    bias = getattr(module, "bias", None)
    return out if bias is None else out + bias.detach().float()


def projections(parts: LayerParts, kept: LayerCapture) -> Projections | None:
    """q, k and v by the projections' own weights, from separate linears or one fused [q|k|v]."""
    if parts.fused is not None:
        whole = linear(kept.fused, parts.fused)
        call = kept.call
        if whole is None or call is None:
            return None
        q_size = call.heads * call.q.shape[-1]
        kv_size = (whole.shape[-1] - q_size) // 2
        if kv_size <= 0:
            q_size = kv_size = whole.shape[-1] // 3
        weights = weight_of(parts.fused).detach().split([q_size, kv_size, kv_size], dim=0)
        q, k, v = whole.split([q_size, kv_size, kv_size], dim=-1)
        assert kept.fused is not None and kept.fused.out is not None
        return Projections(q, k, v, (weights[0], weights[1], weights[2]), kept.fused.out.dtype)
    q_made, k_made, v_made = (
        linear(getattr(kept, name), getattr(parts, name)) for name in ("query", "key", "value")
    )
    if q_made is None or k_made is None or v_made is None:
        return None
    assert kept.query is not None and kept.query.out is not None
    assert parts.query is not None and parts.key is not None and parts.value is not None
    q, k, v = (weight_of(m).detach() for m in (parts.query, parts.key, parts.value))
    return Projections(q_made, k_made, v_made, (q, k, v), kept.query.out.dtype)


def flat_heads(tensor: torch.Tensor, heads: int | None = None) -> torch.Tensor:
    """(r, h, p, d) -> (r, p, h * d). ``heads``: undo a repetition of key/value heads first."""
    if heads and tensor.shape[1] > heads and tensor.shape[1] % heads == 0:
        tensor = tensor[:, :: tensor.shape[1] // heads]
    return tensor.transpose(1, 2).flatten(2)
