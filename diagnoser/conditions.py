"""What else a site may have to show for a rule of :mod:`diagnoser.rules` to be met."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

At = Mapping[str, float]
"""Last values of the metrics of a site, by name, and those :func:`before`; what was not measured is
missing or NaN."""


def before(metric: str) -> str:
    """The name of a metric's measurement before the last one."""
    return f"{metric} before"


def _of(at: At, name: str) -> float:
    return at.get(name, np.nan)


def _beyond_scale(at: At) -> float:
    """How much larger the error of the logits is than what their scale makes it; 1: nothing else is
    wrong with them."""
    factor = 2.0 ** _of(at, "head_gain")
    made = abs(factor - 1.0) / max(factor, 1.0)
    return _of(at, "head_error") / made if made else np.nan


def _only_scaled(at: At) -> bool:
    """The logits are those expected times a factor."""
    return abs(_beyond_scale(at) - 1.0) < 0.004


def _older_copy(at: At) -> bool:
    """Weights as they were before: every class is off by a part, or the logits are nearly those
    expected, and smaller."""
    wrong, smaller = _of(at, "wrong_classes"), _of(at, "head_gain") < 0.0
    # Of classes in each other's place one at least is right.
    every = (wrong == 1.0 or (smaller and wrong > 0.9)) and _of(at, "head_error") < 0.7
    return every or (smaller and 1.0 < _beyond_scale(at) < 1.2)


def _keys_alone(at: At) -> bool:
    """Positions turn keys; values have none. What is older than it should be is wrong otherwise."""
    turned = _of(at, "value_error") < 0.3 * _of(at, "key_error")
    return turned and not _of(at, "stale_share") > 0.01


def _values_alone(at: At) -> bool:
    """Keys of an earlier layer that is wrong would be wrong too."""
    return _of(at, "key_error") < 0.3 * _of(at, "value_error")


def _of_others(at: At) -> bool:
    """Keys and values are as far off as those of unrelated tokens."""
    return all(_of(at, name) > 0.7 for name in ("key_error", "value_error"))


def _nothing_last(at: At) -> bool:
    """The newest position holds zeros: an error of exactly 1."""
    return abs(_of(at, "last_error") - 1.0) < 0.01


def _hole(at: At) -> bool:
    """Zeros where the newest position should be, and no position twice: it went elsewhere."""
    return _nothing_last(at) and _of(at, "stale_share") < 1e-3


def _nothing_leaked(at: At) -> bool:
    """What should be hidden is."""
    return _of(at, "leaked") < 1e-3


def _part_leaked(at: At) -> bool:
    """Some of the later positions are seen, and not everything that should be hidden."""
    return _of(at, "future_mass") > 1e-3 and _of(at, "leaked") < 0.95


def _all_leaked(at: At) -> bool:
    """Nothing that should be hidden is: the mask is not applied, however it was made."""
    return _of(at, "leaked") > 0.95


def _far_hidden(at: At) -> bool:
    """Far pairs alone are hidden that should be seen: a window, or a pattern with gaps."""
    return _nothing_leaked(at) and _of(at, "hidden_near") < 0.01


def _later_hidden(at: At) -> bool:
    """Later positions alone are hidden: of a model that sees both ways a part is causal."""
    return _nothing_leaked(at) and _of(at, "hidden_later") > 0.99


def _near_hidden(at: At) -> bool:
    """Tokens are hidden from themselves or from their neighbours."""
    return _of(at, "hidden_near") >= 0.01


def _squeezed(at: At) -> bool:
    """Neighbouring tokens lie apart, but nearer than a position."""
    return 0.02 < _of(at, "spacing") < 0.9


def _coarse(at: At) -> bool:
    """The scores are off by what rounding makes, and their scale is right."""
    return _of(at, "input_error") < 0.1 and not abs(_of(at, "scale_ratio")) > 0.05


def _only_the_scale(at: At) -> bool:
    """Nothing else is wrong with the scores where they were seen."""
    return not _of(at, "input_error") > 0.005


def _scale_drifts(at: At) -> bool:
    """The factor is another one in every sample: what is missing is a part of q and k."""
    drift = abs(_of(at, "scale_ratio") - _of(at, before("scale_ratio")))
    return _only_the_scale(at) and drift > 0.005


def _probabilities(at: At) -> bool:
    """The logits are small, nearly alike, and all of them unlike those expected."""
    alike = 1e-5 < _of(at, "logit_std") < 0.5
    return alike and _of(at, "head_error") > 0.9 and not _of(at, "wrong_classes") < 1.0


def _same_dead(at: At) -> bool:
    """As many neurons are dead as in the sample before: the same ones. Those that an activation
    silences depend on the batch."""
    dead = _of(at, "dead_neurons")
    return dead > 0.0 and abs(dead - _of(at, before("dead_neurons"))) < 1e-6


def _more_than_dead(at: At) -> bool:
    """The activation is off by more than the dead neurons make, which are others each time."""
    made = math.sqrt(max(_of(at, "dead_neurons"), 0.0))
    return not _same_dead(at) and _of(at, "activation_error") > 1.5 * made


def _queries_right(at: At) -> bool:
    """Keys and values are off, queries are not: what a cache would hold was made coarse."""
    return all(_of(at, "q_error") < 0.1 * _of(at, name) for name in ("k_error", "v_error"))


def _output_cut(at: At) -> bool:
    """What the kernel gives has another shape than what the output projection takes."""
    return math.isnan(_of(at, "reaches_output"))


def _no_sum(at: At) -> bool:
    """The stream is off by more than wrong coefficients of its two parts would make."""
    parts = abs(_of(at, "skip_gain")) + abs(_of(at, "branch_gain")) * _of(at, "branch_ratio")
    return _of(at, "sum_error") > 3.0 * parts


def _only_coefficients(at: At) -> bool:
    """The stream is the sum of its two parts, with other coefficients."""
    return _of(at, "misfit") < 1e-3


def _rows_dropped(at: At) -> bool:
    """The branch is missing in some rows of a batch, other ones each time, and scaled up in the
    rest."""
    gains = [_of(at, name) for name in ("branch_gain", before("branch_gain"))]
    uneven = max(_of(at, name) for name in ("misfit", before("misfit"))) > 0.01
    skipped = max(abs(_of(at, name)) for name in ("skip_gain", before("skip_gain")))
    return uneven and abs(gains[0] - gains[1]) > 0.02 and skipped < 0.02


def _both_off(at: At) -> bool:
    """Both coefficients are off: what was added is not this stream, but something like it."""
    return all(abs(_of(at, name)) > 0.02 for name in ("skip_gain", "branch_gain"))


def _larger_than_gamma(at: At) -> bool:
    """An epsilon too large makes a norm's output smaller than its weights; this one is larger."""
    return _of(at, "output_std") > 1.2 * _of(at, "gamma_norm")


CONDITIONS: dict[str, Callable[[At], bool]] = {
    "only scaled": _only_scaled,
    "older copy": _older_copy,
    "keys alone": _keys_alone,
    "values alone": _values_alone,
    "of others": _of_others,
    "nothing last": _nothing_last,
    "hole": _hole,
    "nothing leaked": _nothing_leaked,
    "part leaked": _part_leaked,
    "all leaked": _all_leaked,
    "far hidden": _far_hidden,
    "later hidden": _later_hidden,
    "near hidden": _near_hidden,
    "squeezed": _squeezed,
    "coarse": _coarse,
    "only the scale": _only_the_scale,
    "scale drifts": _scale_drifts,
    "probabilities": _probabilities,
    "same dead": _same_dead,
    "more than dead": _more_than_dead,
    "queries right": _queries_right,
    "output cut": _output_cut,
    "no sum": _no_sum,
    "only coefficients": _only_coefficients,
    "rows dropped": _rows_dropped,
    "both off": _both_off,
    "larger than gamma": _larger_than_gamma,
}
"""What else a site may have to show for a rule to be met: the last values of its metrics, NaN
where not measured."""
