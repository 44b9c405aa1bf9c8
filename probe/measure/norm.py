"""Normalisation layers: their parameters, and their output against the formula."""

from __future__ import annotations

from probe.schema import Metric

_NODES = ("norm_attention", "norm_ffn", "norm_final")

METRICS = (
    Metric(
        "gamma_norm",
        _NODES,
        "positive",
        "",
        "norm of gamma over sqrt(width)",
        "like its peers",
        source="DEFault++",
    ),
    Metric(
        "gamma_mean",
        _NODES,
        "statistic",
        "",
        "mean of gamma (of 1 + w where the layer adds one)",
        "like its peers",
    ),
    Metric(
        "gamma_zero", _NODES, "share", "share", "entries of gamma that are zero", "0", contract=True
    ),
    Metric("beta_mean", _NODES, "statistic", "", "mean of beta", "like its peers"),
    Metric(
        "output_std",
        _NODES,
        "positive",
        "",
        "standard deviation of the output over dimensions, mean over tokens",
        "steady",
        source="DEFault++",
    ),
    Metric(
        "formula_error",
        _NODES,
        "residual",
        "relative",
        "output against the formula with the layer's weight, bias and the config's eps",
        "rounding",
        contract=True,
        tolerance=1e-4,
    ),
    Metric(
        "eps_ratio",
        _NODES,
        "signed",
        "log10",
        "the layer's eps against the config's, else its peers'",
        "0",
        contract=True,
    ),
    Metric(
        "decay_severity",
        _NODES,
        "residual",
        "share",
        "share of the parameter that weight decay removes over 1000 steps at the peak rate",
        "below 0.1",
        contract=True,
        tolerance=0.1,
    ),
)
