"""Token embedding: its scale, whether the lookup gives the rows it should, dead rows and dims."""

from __future__ import annotations

import torch

from probe.dropouts import of_embedding
from probe.measure.numbers import log2_ratio, mean, relative, rms
from probe.measure.sampled import Sampled, Values
from probe.schema import Metric

METRICS = (
    Metric(
        "norm", ("embedding",), "positive", "", "mean token vector norm over sqrt(width)", "steady"
    ),
    Metric(
        "token_variance",
        ("embedding",),
        "positive",
        "",
        "variance across tokens, mean over dimensions",
        "steady",
    ),
    Metric(
        "lookup_error",
        ("embedding",),
        "residual",
        "relative",
        "embedding output against the table's rows of the input ids",
        "0",
        contract=True,
        tolerance=1e-5,
    ),
    Metric(
        "wrong_rows",
        ("embedding",),
        "share",
        "share",
        "sampled tokens whose vector is not the table's row of their id",
        "0",
        contract=True,
    ),
    Metric(
        "wrong_dims",
        ("embedding",),
        "share",
        "share",
        "dimensions in which any sampled token's vector is not the table's row of its id",
        "0",
        contract=True,
    ),
    Metric(
        "zero_rows",
        ("embedding",),
        "share",
        "share",
        "rows used by this batch that are all zero, padding row aside",
        "0",
        contract=True,
        tolerance=1e-3,
    ),
    Metric(
        "zero_dims",
        ("embedding",),
        "share",
        "share",
        "dimensions that do not vary over the sampled tokens",
        "0",
        contract=True,
        tolerance=1e-3,
    ),
    Metric(
        "type_scale",
        ("embedding",),
        "signed",
        "log2",
        "segment embedding output against its table's rows, as a ratio of norms, and as it enters "
        "the embeddings' sum",
        "0",
        contract=True,
        tolerance=1e-3,
    ),
    Metric(
        "small_rows",
        ("embedding",),
        "share",
        "share",
        "sampled tokens whose vector is below a quarter of the norms' upper quartile",
        "0",
        contract=True,
        tolerance=0.05,
    ),
    Metric(
        "type_gap",
        ("embedding",),
        "signed",
        "log2",
        "segment table's root mean square against the token table's",
        "steady",
    ),
    Metric(
        "dropout_gap",
        ("embedding",),
        "signed",
        "probability",
        "dropout on the sum of the embeddings minus the config's",
        "0",
        source="attach-time fact",
        contract=True,
    ),
)


_PLAIN_SUM = 0.01
"""How far the sum may be off from its parts, relative: 16 bits round to less."""


def measure(sampled: Sampled) -> Values:
    """Metrics of site ``embedding``."""
    capture, table = sampled.capture, sampled.parts.token_embedding
    dropped: Values = {"dropout_gap": of_embedding(sampled.parts).gap}
    flow = capture.token_embedding
    if flow is None or flow.out is None or table is None:
        return dropped
    out = flow.out.float()
    width = out.shape[-1]
    centre = (out * sampled.tokens).sum(dim=(0, 1)) / sampled.valid.sum().clamp_min(1.0)
    spread = ((out - centre).square() * sampled.tokens).sum(dim=(0, 1))
    spread = spread / sampled.valid.sum().clamp_min(1.0)
    zero = (out.abs().amax(dim=-1) == 0).float()
    ids = sampled.batch.ids
    picked = sampled.picked.take_ids(ids) if ids is not None else None
    words = sampled.valid
    if picked is not None and (padding := getattr(table, "padding_idx", None)) is not None:
        # No mask hides the padding behind a row that generation is done with.
        words = words * (picked != padding)
    values = dropped | {
        "norm": mean(out.norm(dim=-1) / width**0.5, sampled.valid),
        "token_variance": spread.mean(),
        "zero_rows": mean(zero, words),
        "small_rows": _small(out, words),
        "zero_dims": (spread <= 1e-12 * spread.amax()).float().mean(),
    }
    scale = _scale(table)
    if picked is not None and scale is not None:
        rows = table.weight.detach()[picked.clamp(0, table.num_embeddings - 1)]
        rows = rows * (scale.to(rows.dtype) if isinstance(scale, torch.Tensor) else scale)
        values["lookup_error"] = relative(out, rows, sampled.tokens)
        wrong = ((out - rows).abs() > 1e-3 * rms(rows)) & (sampled.tokens > 0)
        values["wrong_rows"] = mean(wrong.any(dim=-1), sampled.valid)
        values["wrong_dims"] = wrong.flatten(0, 1).any(dim=0).float().mean()
    types, type_table = capture.type_embedding, sampled.parts.type_embedding
    if types is not None and types.out is not None and capture.type_ids is not None:
        assert type_table is not None
        expected = type_table.weight.detach()[capture.type_ids]
        values["type_gap"] = log2_ratio(rms(type_table.weight), rms(table.weight))
        made = log2_ratio(types.out.float().norm(), expected.float().norm())
        values["type_scale"] = made + _entered(sampled, types.out.float())
    return values


def _entered(sampled: Sampled, types: torch.Tensor) -> torch.Tensor | float:
    """log2 of the factor that ``types`` (r, p, d) enter the embeddings' sum with; 0 where that is 1,
    or where the sum has other parts."""
    capture = sampled.capture
    places, tokens = capture.position_embedding, capture.token_embedding
    if capture.stream is None or tokens is None or tokens.out is None:
        return 0.0
    stream = capture.stream.float()
    added = 0.0 if places is None or places.out is None else places.out.float()
    if stream.shape != tokens.out.shape or stream.shape != types.shape:
        return 0.0
    rest = (stream - tokens.out.float() - added) * sampled.tokens
    types = types * sampled.tokens
    factor = (rest * types).sum() / types.square().sum().clamp_min(1e-12)
    off = (rest - factor * types).norm() / rest.norm().clamp_min(1e-12)
    told = (off < _PLAIN_SUM) & (factor > 0.0) & ((factor - 1.0).abs() > _PLAIN_SUM)
    return torch.where(told, factor, 1.0).log2()


def _scale(table: torch.nn.Embedding) -> float | torch.Tensor | None:
    """What a lookup multiplies the rows by; None where it is more than that, or not known.

    Subclasses that scale (Gemma's, BART's) keep the factor as ``embed_scale``.
    """
    if type(table) is torch.nn.Embedding:
        return 1.0
    scale = getattr(table, "embed_scale", None)
    if isinstance(scale, torch.Tensor):
        return scale.detach() if scale.ndim == 0 else None
    return float(scale) if isinstance(scale, int | float) else None


def _small(out: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
    norms = out.norm(dim=-1)
    # Padding's row is zero by construction: it takes no part. Half of the rows may be small.
    shown = torch.where(words > 0, norms, torch.full_like(norms, float("nan")))
    return mean((norms < 0.25 * shown.nanquantile(0.75)).float(), words)
