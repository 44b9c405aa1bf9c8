"""Training dynamics: loss, learning rate, gradients of the whole model, time and memory."""

from __future__ import annotations

from probe.schema import Metric

METRICS = (
    Metric("loss", ("training",), "positive", "", "training loss, mean over the step's micro-batches", "falling"),
    Metric("learning_rate", ("training",), "positive", "", "largest rate over the optimizer's groups", "as scheduled"),
    Metric("grad_norm", ("training",), "positive", "", "global gradient norm as the optimizer sees it", "steady", source="DEFault++"),
    Metric("grad_max", ("training",), "positive", "", "largest per-component gradient norm (per root element)", "steady", source="DEFault++"),
    Metric("grad_min", ("training",), "positive", "", "smallest per-component gradient norm (per root element)", "above 0", source="DEFault++"),
    Metric("grad_mean", ("training",), "positive", "", "mean per-component gradient norm", "steady", source="DEFault++"),
    Metric("grad_spread", ("training",), "positive", "", "standard deviation over mean of per-component gradient norms", "steady", source="DEFault++"),
    Metric("grad_decay", ("training",), "signed", "log2", "first layer's gradient norm over the last layer's", "steady", source="DEFault++"),
    Metric("volatility", ("training",), "positive", "", "variance over squared mean of the gradient norm, last 20 samples", "below 1", source="DEFault++"),
    Metric("clip_level", ("training",), "positive", "", "max_norm the gradients were clipped to, where the clipped norm sits at one value", "as configured"),
    Metric("step_time", ("training",), "positive", "s", "median time of the steps since the last sample", "steady"),
    Metric("memory", ("training",), "positive", "bytes", "peak memory of the device; of the process on CPU", "steady"),
    Metric("uncovered", ("training",), "share", "share", "parameters reached in forward, not frozen, that no optimizer group holds", "0", contract=True),
    Metric("duplicated", ("training",), "share", "share", "parameters that several groups hold", "0", contract=True),
    Metric("accuracy", ("validation",), "share", "share", "as given by p.validation", "rising", source="DEFault++"),
    Metric("loss", ("validation",), "positive", "", "as given by p.validation", "falling"),
)
