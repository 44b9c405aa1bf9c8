"""Positions: which index each token gets, and whether q and k are rotated by it."""

from __future__ import annotations

import math

import torch

from probe.measure.numbers import mean, relative
from probe.measure.sampled import Projections, Sampled, Values, flat_heads
from probe.schema import Metric

METRICS = (
    Metric(
        "sensitivity",
        ("positional",),
        "positive",
        "",
        "mean distance of neighbouring tokens' hidden states over sqrt(width), mean over layers",
        "steady",
        source="DEFault++",
    ),
    Metric(
        "strength",
        ("positional",),
        "share",
        "ratio",
        "norm of what positions add, against the token embedding; for rotary, relative change of q by the rotation",
        "above 0",
    ),
    Metric(
        "missing",
        ("positional",),
        "share",
        "0 or 1",
        "the model owns positions but they add nothing (learned) or do not rotate q and k (rotary)",
        "0",
        contract=True,
    ),
    Metric(
        "index_error",
        ("positional",),
        "share",
        "share",
        "real tokens whose position index is not the one implied by their place (in causal models behind the first real token)",
        "0",
        contract=True,
    ),
    Metric(
        "repeated",
        ("positional",),
        "share",
        "share",
        "real tokens whose index equals their predecessor's",
        "0",
        contract=True,
    ),
    Metric(
        "offset",
        ("positional",),
        "signed",
        "positions",
        "mean difference between the index used and the implied one",
        "0",
        contract=True,
    ),
    Metric(
        "spacing",
        ("positional",),
        "statistic",
        "ratio",
        "mean distance between neighbouring real tokens' indices, against the implied one; for rotary, of q or k, whichever is farther off",
        "1",
    ),
    Metric(
        "rotation_error",
        ("positional",),
        "residual",
        "relative",
        "kernel's q and k against the projected ones rotated by the implied positions, worst layer",
        "0",
        contract=True,
        tolerance=1e-4,
    ),
)


_MOST_POSITIONS = 8192
_READ_BACK = {"index_error": 0.0, "repeated": 0.0, "offset": 0.0, "spacing": 1.0}
"""What is read back from q and k, and its healthy value: of several the one farthest from it
counts."""


def measure(sampled: Sampled, made: dict[int, Projections]) -> Values:
    """Metrics of site ``positional``: learned positions, or rotary ones seen at every layer."""
    values: Values = {}
    if sampled.parts.position_embedding is not None:
        # Which tokens a table of a decoder over something else was called for is not told.
        values |= _learned(sampled) if not sampled.capture.reads_beside else {}
    elif sampled.intent.rotary_theta is not None:
        values |= _rotary(sampled, made)
    hidden = [k.block.out for k in sampled.kept if k.block and k.block.out is not None]
    if hidden:
        values["sensitivity"] = torch.stack([_steps(h, sampled.valid) for h in hidden]).mean()
    return values


def _steps(hidden: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Mean distance between neighbouring picked tokens."""
    hidden = hidden.float()
    apart = (hidden[:, 1:] - hidden[:, :-1]).norm(dim=-1) / hidden.shape[-1] ** 0.5
    return mean(apart, valid[:, 1:] * valid[:, :-1])


def _implied(sampled: Sampled) -> torch.Tensor:
    """(r, p) the caller's position ids, else a token's place in its row."""
    picked, given = sampled.picked, sampled.batch.positions
    chosen = picked.take_ids(given) if given is not None else None
    if chosen is not None:
        return chosen.float()
    return picked.positions.float()[None, :].expand(sampled.valid.shape)


def _learned(sampled: Sampled) -> Values:
    capture, table = sampled.capture, sampled.parts.position_embedding
    flow, tokens = capture.position_embedding, sampled.capture.token_embedding
    assert table is not None
    if flow is None:
        # Of a model that is given its encoder's states, as it generates, no encoder runs.
        if tokens is None or capture.stream is None:
            return {}
        return {"missing": _missing_uncalled(sampled, table)}
    if flow.out is None or tokens is None or tokens.out is None:
        return {}
    added = flow.out.float()
    values: Values = {
        "strength": (added * sampled.tokens).norm()
        / (tokens.out.float() * sampled.tokens).norm().clamp_min(1e-12),
        "missing": _missing(sampled, added),
    }
    implied, known = _implied_rows(sampled, table)
    if implied is not None and table.num_embeddings <= _MOST_POSITIONS:
        # The row that was added is the index that was used, whatever index the code asked for.
        used = torch.cdist(added.flatten(0, 1), table.weight.detach().float()).argmin(dim=-1)
        present = added.abs().amax(dim=-1) > 0
        weight = sampled.valid * present * known
        shape = sampled.valid.shape
        values |= _indices(used.view(added.shape[:2]).float().expand(shape), implied, weight)
    return values


def _implied_rows(
    sampled: Sampled, table: torch.nn.Embedding
) -> tuple[torch.Tensor | None, torch.Tensor]:
    """((r, p) rows of the table that the tokens should get, (r, p) 1.0 where that is sure).

    Positions of a causal model are counted from the first real token, as generation does it from
    the attention mask. A table with a row for padding counts real tokens from behind that row, as
    fairseq does. One with more rows than there are positions keeps the first ones for something
    else.
    """
    everywhere = torch.ones_like(sampled.valid)
    if sampled.batch.positions is not None or table.padding_idx is None:
        spare = 0
        if sampled.batch.positions is not None:
            # Positions that the caller gave are rows, but for tables that say otherwise (OPT).
            spare = int(getattr(table, "offset", 0))
        elif sampled.intent.positions:
            spare = max(0, table.num_embeddings - int(sampled.intent.positions))
        if sampled.batch.positions is None and sampled.batch.mask is not None:
            found = _from_first_real(sampled, sampled.batch.mask != 0, bool(spare))
            if found is not None:
                return found[0] + spare, found[1]
        return _implied(sampled) + spare, everywhere
    ids = sampled.batch.ids
    if ids is None:
        return None, everywhere
    real = ids != table.padding_idx
    rows = real.cumsum(dim=1) * real + table.padding_idx
    chosen, sure = sampled.picked.take_ids(rows), sampled.picked.take_ids(real)
    if chosen is None or sure is None:
        return None, everywhere
    return chosen.float(), sure.float()


def _from_first_real(
    sampled: Sampled, real: torch.Tensor, either: bool
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """((r, p) places behind each row's first real token, (r, p) 1.0 where that is sure), by
    ``real`` (batch, length). None where nothing says that padding on the left is not counted.

    ``either``: the model may count from the first real token, causal or not.
    """
    causal = bool(sampled.intent.family) and bool(sampled.stack.causal)
    if not causal and not either:
        return None
    places = torch.arange(real.shape[1], device=real.device)
    counted = real.cumsum(dim=1)
    before = (counted == 0).sum(dim=1, keepdim=True)
    # Behind a gap in the mask both ways of counting are in use.
    sure = counted == places + 1 - before
    if not causal:
        sure = sure & (before == 0)
    behind, known = sampled.picked.take_ids(places - before), sampled.picked.take_ids(sure)
    return (behind.float(), known.float()) if behind is not None and known is not None else None


def _missing_uncalled(sampled: Sampled, table: torch.nn.Embedding) -> torch.Tensor | float:
    """Whether the embeddings' sum lacks the rows of a table that was not called: a model may read
    its weights by itself."""
    rows, _ = _implied_rows(sampled, table)
    tokens = sampled.capture.token_embedding
    if rows is None or tokens is None or tokens.out is None:
        return 1.0
    added = table.weight.detach()[rows.long().clamp(0, table.num_embeddings - 1)]
    return _missing(sampled, added.float())


def _missing(sampled: Sampled, added: torch.Tensor) -> torch.Tensor:
    """1 where the embeddings' sum holds less than half of the position vectors."""
    capture = sampled.capture
    stream, tokens, types = capture.stream, capture.token_embedding, capture.type_embedding
    present = (added * sampled.tokens).square().sum()
    if stream is None or tokens is None or tokens.out is None:
        return (present == 0).float()
    if not sampled.intent.family:
        return _missing_beside(stream.float(), tokens.out.float(), added, sampled.tokens)
    rest = stream.float() - tokens.out.float()
    if types is not None and types.out is not None:
        rest = rest - types.out.float()
    share = (rest * added * sampled.tokens).sum() / present.clamp_min(1e-12)
    return ((share < 0.5) | (present == 0)).float()


def _missing_beside(
    stream: torch.Tensor, tokens: torch.Tensor, added: torch.Tensor, weight: torch.Tensor
) -> torch.Tensor:
    """The same where the token vectors may have been multiplied first, by the root of the width
    for one: both coefficients by least squares."""
    t, a, s = tokens * weight, added * weight, stream * weight
    tt, aa, ta = (t * t).sum(), (a * a).sum(), (t * a).sum()
    det = (tt * aa - ta * ta).clamp_min(1e-12)
    share = (tt * (a * s).sum() - ta * (t * s).sum()) / det
    return ((share < 0.5) | (aa == 0)).float()


def _indices(used: torch.Tensor, implied: torch.Tensor, weight: torch.Tensor) -> Values:
    """``used`` (r, p) position each token got; compared with the implied one, and its neighbour's."""
    off = used - implied
    both = weight[:, 1:] * weight[:, :-1]
    gaps = implied[:, 1:] - implied[:, :-1]
    strides = (used[:, 1:] - used[:, :-1]) / gaps.clamp_min(1.0)
    return {
        "index_error": mean((off.abs() > 0.5).float(), weight),
        "offset": mean(off, weight),
        "repeated": mean((strides.abs() < 0.5).float(), both),
        # Where positions begin anew, with another document, nothing is implied.
        "spacing": mean(strides, both * (gaps > 0)),
    }


def _rotary(sampled: Sampled, made: dict[int, Projections]) -> Values:
    implied = _implied(sampled)
    seen: list[Values] = []
    for at, projected in made.items():
        found = _rotary_layer(sampled, at, projected, implied)
        if found:
            seen.append(found)
    if not seen:
        return {}
    values: Values = {}
    for name in {name for found in seen for name in found}:
        stacked = torch.stack([torch.as_tensor(v[name]) for v in seen if name in v])
        if name in _READ_BACK:
            off = (stacked - _READ_BACK[name]).abs().nan_to_num()
            values[name] = stacked.gather(0, off.argmax(0, keepdim=True))[0]
        else:
            values[name] = stacked.amin() if name == "strength" else stacked.amax()
    return values


def _rotary_layer(
    sampled: Sampled, at: int, projected: Projections, implied: torch.Tensor
) -> Values:
    kept = sampled.kept[at]
    call, theta = kept.call, sampled.intent.rotary_theta
    if call is None or theta is None or at in sampled.intent.unturned:
        return {}
    dim = call.q.shape[-1]
    kv_heads = projected.k.shape[-1] // dim
    q, k = flat_heads(call.q).float(), flat_heads(call.k, kv_heads).float()
    if (
        q.shape != projected.q.shape
        or k.shape != projected.k.shape
        or dim != sampled.intent.head_dim
    ):
        return {}
    half = torch.arange(dim // 2, device=q.device).float()
    frequency = theta ** (-2.0 * half / dim)
    angle = implied[..., None] * frequency
    errors: list[torch.Tensor] = []
    same: list[torch.Tensor] = []
    values: Values = {}
    both = _laid_out((q, projected.q), (k, projected.k), angle, dim)
    for seen, plain in both:
        # A factor on q or k is no matter of positions: score/scale_ratio tells whether it is right.
        grown = plain * _growth(seen, plain, sampled.tokens)
        errors.append(relative(seen, _rotate(grown, angle, dim), sampled.tokens))
        same.append(relative(seen, grown, sampled.tokens))
    values["rotation_error"] = torch.maximum(errors[0], errors[1])
    strength = torch.minimum(same[0], same[1])
    values["strength"] = strength
    # A row of one token has nothing to rotate; every longer one has.
    values["missing"] = (strength < 1e-3).float()
    # An angle from half-precision projections is off by more than a position at slow frequencies.
    if call.kernel_dtype == projected.dtype == torch.float32:
        values |= _rotary_indices(sampled, both, frequency, dim)
    return values


_Pair = tuple[torch.Tensor, torch.Tensor]  # as seen, as projected


def _laid_out(q: _Pair, k: _Pair, angle: torch.Tensor, dim: int) -> tuple[_Pair, _Pair]:
    """The same with the elements that are turned together half a head apart, as most families lay
    them out; others have them side by side, which shows in which of the two is turned rightly."""

    def moved(flat: torch.Tensor) -> torch.Tensor:
        return flat.unflatten(-1, (-1, dim // 2, 2)).transpose(-1, -2).flatten(-3)

    def error(pair: _Pair) -> torch.Tensor:
        return (pair[0] - _rotate(pair[1], angle, dim)).norm()

    beside = (moved(q[0]), moved(q[1])), (moved(k[0]), moved(k[1]))
    closer = error(beside[0]) + error(beside[1]) < error(q) + error(k)
    (q_seen, q_made), (k_seen, k_made) = (
        tuple(torch.where(closer, *pair) for pair in zip(other, plain, strict=True))
        for other, plain in zip(beside, (q, k), strict=True)
    )
    return (q_seen, q_made), (k_seen, k_made)


def _growth(seen: torch.Tensor, plain: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """How much longer ``seen`` is than ``plain``, over all tokens; turning changes no length."""
    return (seen * weight).norm() / (plain * weight).norm().clamp_min(1e-12)


def _rotary_indices(
    sampled: Sampled,
    both: tuple[_Pair, _Pair],
    frequency: torch.Tensor,
    dim: int,
) -> Values:
    """Positions read back from how far q and k were turned, at the fastest unambiguous frequency."""
    length = sampled.picked.length
    slow = (frequency * 2 * length < math.pi).float()
    at = slow.argmax()
    found: list[Values] = []
    for turned, plain in both:
        z, w = _complex(turned, dim), _complex(plain, dim)
        product = (z * w.conj()).sum(dim=2)
        product = product.gather(-1, at.expand(*product.shape[:-1], 1))[..., 0]
        # Where q or k has next to nothing at this frequency, the angle is noise.
        strong = (product.abs() > 0.05 * product.abs().mean()).float()
        turned_by = product.angle() / frequency[at]
        found.append(_indices(turned_by, _implied(sampled), sampled.valid * strong))
    q, k = found
    return {name: _farther(_t(q[name]), _t(k[name]), at) for name, at in _READ_BACK.items()}


def _farther(one: torch.Tensor, other: torch.Tensor, origin: float) -> torch.Tensor:
    return torch.where((one - origin).abs() > (other - origin).abs(), one, other)


def _t(value: torch.Tensor | float) -> torch.Tensor:
    return torch.as_tensor(value)


def _complex(flat: torch.Tensor, dim: int) -> torch.Tensor:
    """(r, p, h * d) -> complex (r, p, h, d / 2), half-split pairs."""
    halves = flat.unflatten(-1, (-1, 2, dim // 2))
    return torch.complex(halves[..., 0, :].contiguous(), halves[..., 1, :].contiguous())


def _rotate(flat: torch.Tensor, angle: torch.Tensor, dim: int) -> torch.Tensor:
    turned = _complex(flat, dim) * torch.polar(torch.ones_like(angle), angle)[:, :, None, :]
    return torch.stack([turned.real, turned.imag], dim=-2).flatten(-3)
