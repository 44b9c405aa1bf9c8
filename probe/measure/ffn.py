"""Feed-forward block: scale, activation against the config's, dead neurons, weights."""

from __future__ import annotations

from probe.schema import Metric

METRICS = (
    Metric("token_norm", ("ffn",), "positive", "", "mean token norm of the output over sqrt(width)", "like its peers", source="DEFault++"),
    Metric("activation_error", ("ffn",), "residual", "relative", "activation output against the config's activation of its input", "rounding", contract=True, tolerance=1e-4),
    Metric("dead_neurons", ("ffn",), "share", "share", "hidden neurons that are exactly zero on every sampled token", "0 for smooth activations", contract=True),
    Metric("linear_error", ("ffn",), "residual", "relative", "output of the linears against input times their weights", "rounding", contract=True, tolerance=1e-4),
    Metric("in_weight", ("ffn",), "positive", "", "root mean square of the expanding weights", "like its peers"),
    Metric("out_weight", ("ffn",), "positive", "", "root mean square of the contracting weights", "like its peers"),
    Metric("in_gap", ("ffn",), "signed", "log2", "expanding weights at attach against the median layer's", "0", contract=True, tolerance=0.35),
    Metric("out_gap", ("ffn",), "signed", "log2", "contracting weights at attach against the median layer's", "0", contract=True, tolerance=0.35),
    Metric("weight_kurtosis", ("ffn",), "statistic", "", "excess kurtosis of the expanding weights: 0 normal, -1.2 uniform", "like its peers"),
    Metric("constant_weights", ("ffn",), "share", "share", "weight matrices whose entries are all equal (zero included)", "0", contract=True),
    Metric("decay_gap", ("ffn",), "signed", "", "weight decay of these weights minus the median of the model's other matrices", "0", contract=True, tolerance=1e-6),
)
