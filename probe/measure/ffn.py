"""Feed-forward block: scale, activation against the config's, dead neurons, weights."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F

from probe.anatomy import LayerParts, weight_of
from probe.captured import LayerCapture
from probe.measure.numbers import log2_ratio, mean, relative, rms, spread, strided
from probe.measure.sampled import Sampled, Values, linear
from probe.schema import Metric

METRICS = (
    Metric(
        "token_norm",
        ("ffn",),
        "positive",
        "",
        "mean token norm of the output over sqrt(width)",
        "like its peers",
        source="DEFault++",
    ),
    Metric(
        "activation_error",
        ("ffn",),
        "residual",
        "relative",
        "activation output against the config's activation of its input",
        "rounding",
        contract=True,
        tolerance=1e-4,
    ),
    Metric(
        "dead_neurons",
        ("ffn",),
        "share",
        "share",
        "hidden neurons that are exactly zero on every sampled token",
        "0 for smooth activations",
        contract=True,
    ),
    Metric(
        "zero_neurons",
        ("ffn",),
        "share",
        "share",
        "hidden neurons whose outgoing weights are all zero",
        "0",
        contract=True,
    ),
    Metric(
        "equal_neurons",
        ("ffn",),
        "share",
        "share",
        "hidden neurons that vary and give on every sampled token what another one gives",
        "0",
        contract=True,
        tolerance=0.05,
    ),
    Metric(
        "linear_error",
        ("ffn",),
        "residual",
        "relative",
        "output of the linears against input times their weights",
        "rounding",
        contract=True,
        tolerance=1e-4,
    ),
    Metric(
        "in_weight",
        ("ffn",),
        "positive",
        "",
        "root mean square of the expanding weights",
        "like its peers",
    ),
    Metric(
        "out_weight",
        ("ffn",),
        "positive",
        "",
        "root mean square of the contracting weights",
        "like its peers",
    ),
    Metric(
        "in_gap",
        ("ffn",),
        "signed",
        "log2",
        "expanding weights against the median layer's",
        "0",
        contract=True,
        tolerance=0.5,
    ),
    Metric(
        "out_gap",
        ("ffn",),
        "signed",
        "log2",
        "contracting weights against the median layer's",
        "0",
        contract=True,
        tolerance=0.5,
    ),
    Metric(
        "weight_kurtosis",
        ("ffn",),
        "statistic",
        "",
        "excess kurtosis of the expanding weights: 0 normal, -1.2 uniform",
        "like its peers",
    ),
    Metric(
        "constant_weights",
        ("ffn",),
        "share",
        "share",
        "weight matrices whose entries are all equal (zero included)",
        "0",
        contract=True,
    ),
    Metric(
        "decay_gap",
        ("ffn",),
        "signed",
        "",
        "weight decay of these weights minus the median of the block's other matrices, else of the model's",
        "0",
        contract=True,
        tolerance=1e-6,
    ),
    Metric(
        "in_level",
        ("ffn",),
        "signed",
        "log2",
        "expanding weights' root mean square against the same layer's query, key and value weights'",
        "steady",
    ),
    Metric(
        "out_level",
        ("ffn",),
        "signed",
        "log2",
        "contracting weights' root mean square against the same layer's attention output weights'",
        "steady",
    ),
)


Function = Callable[[torch.Tensor], torch.Tensor]

_ACTIVATIONS: dict[str, Function] = {
    "gelu": F.gelu,
    "gelu_new": lambda x: F.gelu(x, approximate="tanh"),
    "gelu_fast": lambda x: F.gelu(x, approximate="tanh"),
    "gelu_pytorch_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x),
    "relu": F.relu,
    "relu2": lambda x: F.relu(x).square(),
    "silu": F.silu,
    "swish": F.silu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
}
_FITTING = {name: _ACTIVATIONS[name] for name in ("gelu", "gelu_new", "relu", "silu", "tanh")} | {
    "relu2": _ACTIVATIONS["relu2"]
}
"""Tried where no config states the activation."""
_SILENCING = ("relu", "relu2")
"""They leave neurons at zero on many tokens, which tells nothing."""
_FITS = "_fits"

_AUDIBLE = 1e-4
"""Of the loudest neuron: what kernels round to zero in 32 bits lies below; in 16 below their eps."""
_ROWS_READ = 64
_TOKENS_COMPARED = 16
_TOKENS_NEEDED = 4
"""Tokens on which a neuron must speak: two may agree on one by chance."""
_EQUAL = 1e-3
"""Of its spread over the tokens: more than parts two copies, less than chance parts two others."""


def measure(sampled: Sampled, parts: LayerParts, kept: LayerCapture) -> Values:
    """Metrics of site ``ffn@l`` that need no other layer."""
    values: Values = {}
    assert parts.expand is not None and parts.contract is not None
    wide, narrow = weight_of(parts.expand), weight_of(parts.contract)
    sample = strided(wide, 4096).float()
    squares = (sample - sample.mean()).square()
    in_weight, out_weight = sample.square().mean().sqrt(), rms(narrow)
    constant = [s.amax() == s.amin() for s in (sample, strided(narrow, 4096))]
    without_way_out = _without_way_out(narrow)
    if not sampled.intent.family and narrow.requires_grad:
        # Begun at zero, as many write it, the branch learns from the first step on.
        begun_at_zero = out_weight == 0
        constant[1] = constant[1] & ~begun_at_zero
        without_way_out = torch.where(begun_at_zero, 0.0, without_way_out)
    values |= {
        "in_weight": in_weight,
        "out_weight": out_weight,
        "weight_kurtosis": squares.square().mean() / squares.mean().square() - 3.0,
        "constant_weights": torch.stack(constant).float().mean(),
        "zero_neurons": without_way_out,
    }
    # Readers of the stream start alike, and so do writers to it; GPT-2 starts writers smaller.
    readers = [m for m in (parts.query, parts.key, parts.value, parts.fused) if m is not None]
    weights = [weight_of(module) for module in readers]
    packed = getattr(parts.packed, "in_proj_weight", None)
    if isinstance(packed, torch.Tensor):
        weights = list(packed.detach().chunk(3))
    if weights:
        levels = torch.stack([rms(weight) for weight in weights])
        values["in_level"] = log2_ratio(in_weight, levels.median())
    if parts.attention_out is not None:
        values["out_level"] = log2_ratio(out_weight, rms(weight_of(parts.attention_out)))
    contract = kept.contract
    if contract is None or contract.into is None or contract.out is None:
        return values
    width = contract.out.shape[-1]
    values["token_norm"] = mean(contract.out.float().norm(dim=-1) / width**0.5, sampled.valid)
    if wrong := _linears(sampled, parts, kept):
        values["linear_error"] = torch.stack(wrong).amax()
    activation = sampled.intent.activation
    equal = equal_neurons(contract.into)
    if equal is not None:
        values["equal_neurons"] = equal
    function = _ACTIVATIONS.get(activation or "")
    made = _activated(kept, function) if function is not None else []
    if activation not in _SILENCING:
        values["dead_neurons"] = _dead(sampled, contract.into, made)
    if function is not None:
        error = _activation_error(sampled, parts, kept, made)
        if error is not None:
            values["activation_error"] = error
    elif not sampled.intent.family:
        errors = [
            _activation_error(sampled, parts, kept, _activated(kept, f)) for f in _FITTING.values()
        ]
        known = [error for error in errors if error is not None]
        if len(known) == len(_FITTING):
            values[_FITS] = torch.stack(known)
    return values


def _without_way_out(narrow: torch.Tensor) -> torch.Tensor:
    """Share of the contracting weights' columns, one a neuron, that are all zero; by a sample of
    their rows."""
    rows = narrow[:: max(1, narrow.shape[0] // _ROWS_READ)]
    return (rows.abs().amax(dim=0) == 0).float().mean()


def equal_neurons(hidden: torch.Tensor) -> torch.Tensor | None:
    """Share of neurons that equal another one; None where there are too few tokens to tell.

    ``hidden``: (rows, tokens, neurons). Neurons that are equal are neighbours in the order of any
    one combination of the tokens.
    """
    tokens = hidden.flatten(0, 1)
    if tokens.shape[0] < _TOKENS_COMPARED:
        return None
    tokens = tokens[:: tokens.shape[0] // _TOKENS_COMPARED][:_TOKENS_COMPARED].float()
    weights = torch.arange(1, len(tokens) + 1, device=tokens.device, dtype=torch.float32).sin()
    ordered = tokens.index_select(1, (weights @ tokens).argsort())
    varies = ordered.amax(dim=0) > ordered.amin(dim=0)
    told = ((ordered != 0).sum(dim=0) >= _TOKENS_NEEDED) & varies
    apart = (ordered[:, 1:] - ordered[:, :-1]).abs().amax(dim=0)
    alike = (apart <= _EQUAL * spread(ordered, 0)[1:]) & told[1:] & told[:-1]
    either = F.pad(alike, (1, 0)) | F.pad(alike, (0, 1))
    return either.float().mean()


def _dead(sampled: Sampled, into: torch.Tensor, made: list[torch.Tensor]) -> torch.Tensor:
    """Share of the neurons that are silent, all 0 in ``into``; of those only that should speak,
    where ``made`` tells: far below 0 a smooth activation rounds to zero too."""

    def loudest(states: torch.Tensor) -> torch.Tensor:
        return (states.abs() * sampled.tokens).flatten(0, 1).amax(dim=0)

    silent = loudest(into) == 0
    if made:
        meant = torch.stack([loudest(states) for states in made]).amax(dim=0)
        audible = max(_AUDIBLE, torch.finfo(into.dtype).eps)
        silent = silent & (meant > audible * meant.amax())
    return silent.float().mean()


def _activated(kept: LayerCapture, function: Function) -> list[torch.Tensor]:
    """``function`` of what the expanding linears gave: what the contracting one should be given,
    before dropout. Several where it is not known which half is the gate; none where not seen."""
    contract, expand, gate = kept.contract, kept.expand, kept.gate
    if contract is None or contract.into is None or expand is None or expand.out is None:
        return []
    wide = expand.out.float()
    if gate is not None and gate.out is not None:
        candidates = [function(gate.out.float()) * wide]
    elif wide.shape[-1] == 2 * contract.into.shape[-1]:
        # Gate and other half in one projection, in either order.
        one, two = wide.chunk(2, dim=-1)
        candidates = [function(one) * two, one * function(two)]
    else:
        candidates = [function(wide)]
    return [made for made in candidates if made.shape == contract.into.shape]


def _activation_error(
    sampled: Sampled, parts: LayerParts, kept: LayerCapture, candidates: list[torch.Tensor]
) -> torch.Tensor | None:
    """The contracting linear's input against what it may have been meant to be."""
    contract = kept.contract
    if contract is None or contract.into is None or not candidates:
        return None
    p = getattr(parts.inner_dropout, "p", 0.0)
    if parts.inner_dropout is None and parts.block.training:
        p = sampled.intent.activation_dropout
    if p and p < 1.0:
        # What dropout left has to be right; what it took is zero.
        candidates = [torch.where(contract.into == 0, 0.0, m / (1.0 - p)) for m in candidates]
    errors = [relative(contract.into, made, sampled.tokens) for made in candidates]
    return torch.stack(errors).amin()


def against_fitting_activation(sampled: Sampled, of_layers: dict[int, Values]) -> None:
    """Where no config states the activation, the one that fits most layers is what all should
    use, and go on using. NaN where none of the usual ones fits."""
    fits = {at: v.pop(_FITS) for at, v in of_layers.items() if _FITS in v}
    if not fits:
        return
    errors = torch.stack([e for e in fits.values() if isinstance(e, torch.Tensor)])
    typical = errors.median(dim=0).values
    fitting, name = typical.argmin(), f"{sampled.stack.name}/activation"
    now = torch.where(typical[fitting] < 0.02, fitting, -1)
    sampled.parts.habits.saw(name, now)
    meant = sampled.parts.habits.held_to(name, now)
    known, best = meant >= 0, meant.clamp_min(0)
    for at, error in zip(fits, errors.index_select(1, best[None])[:, 0], strict=True):
        of_layers[at]["activation_error"] = torch.where(known, error, torch.nan)
        # A neuron that ReLU silences is nothing unusual.
        smooth = known & torch.stack([best != list(_FITTING).index(n) for n in _SILENCING]).all()
        silent = torch.as_tensor(of_layers[at]["dead_neurons"])
        of_layers[at]["dead_neurons"] = torch.where(smooth, silent, torch.nan)


def _linears(sampled: Sampled, parts: LayerParts, kept: LayerCapture) -> list[torch.Tensor]:
    errors = []
    for name in ("gate", "expand", "contract"):
        flow, made = getattr(kept, name), linear(getattr(kept, name), getattr(parts, name))
        if flow is not None and flow.out is not None and made is not None:
            errors.append(relative(flow.out, made, sampled.tokens))
    return errors


def against_peers(of_layers: dict[int, Values]) -> None:
    """Add to each layer's values how its weights compare with the median layer's."""
    for metric, gap in (("in_weight", "in_gap"), ("out_weight", "out_gap")):
        known = {at: v[metric] for at, v in of_layers.items() if metric in v}
        if len(known) < 3:
            continue
        middle = torch.stack([v for v in known.values() if isinstance(v, torch.Tensor)]).median()
        for at, value in known.items():
            assert isinstance(value, torch.Tensor)
            of_layers[at][gap] = log2_ratio(value, middle)
