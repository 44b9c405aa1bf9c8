"""Output head and loss: logits against the head's weights, loss against cross entropy, confidence."""

from __future__ import annotations

from probe.schema import Metric

METRICS = (
    Metric("confidence", ("output",), "share", "", "mean largest probability", "rising", source="DEFault++"),
    Metric("entropy", ("output",), "share", "of log classes", "mean entropy of the prediction over log of the classes", "falling", source="DEFault++"),
    Metric("margin", ("output",), "statistic", "logits", "mean gap of the label's logit to the strongest other", "rising", source="DEFault++"),
    Metric("logit_std", ("output",), "positive", "logits", "standard deviation over classes, mean over positions", "steady"),
    Metric("head_error", ("output",), "residual", "relative", "logits against hidden state times the head's weights", "rounding", contract=True, tolerance=1e-4),
    Metric("head_gain", ("output",), "signed", "log2", "scale of the logits against hidden state times the head's weights", "0", contract=True),
    Metric("zero_rows", ("output",), "share", "share", "rows of the head's weight that are all zero", "0", contract=True),
    Metric("head_weight", ("output",), "positive", "", "root mean square of the head's weights", "steady"),
    Metric("weight_gap", ("output",), "signed", "log2", "head's weights at attach against the config's initial scale (or the tied embedding's)", "0 where trained from scratch"),
    Metric("size_gap", ("output",), "signed", "classes", "classes of the logits minus those of the config", "0", contract=True),
    Metric("untied", ("output",), "share", "0 or 1", "the config ties head and embedding, the model does not", "0", contract=True),
    Metric("loss_error", ("output",), "residual", "relative", "loss against cross entropy of the logits and labels as this architecture aligns them", "rounding", contract=True, tolerance=1e-3),
    Metric("loss_excess", ("output",), "statistic", "log2", "loss over log of the classes", "0 at a random start, then negative"),
)
