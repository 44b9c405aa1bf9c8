"""Runs the counterfactuals of a family by themselves, healthy and with the faults made for them."""

from __future__ import annotations

import torch
from effect_faults import MADE_FOR
from family_models import PACKED, WITHOUT_MASK, batch, make

from probe.absence import Seen
from probe.anatomy import find
from probe.batch import read_output
from probe.capture import Capturing, batch_of
from probe.counterfactual import KINDS, keep, why_not
from probe.measure import effects
from probe.reruns import foreseen
from probe.stopwatch import Stopwatch

TOLERANCE = {metric.name: metric.tolerance for metric in effects.METRICS if metric.contract}


def captured(model, given):
    """(parts, capture) of one forward, as a sample would see it."""
    parts, errors = find(model), []
    capturing = Capturing(parts, batch_of(parts, (), given), errors.append, Stopwatch())
    loss, logits = read_output(model(**given))
    capture = capturing.close()
    assert not errors
    capture.loss, capture.logits = loss, None if logits is None else logits.detach()
    return parts, capture


def measured(parts, capture, kinds=KINDS):
    """Every counterfactual's numbers, NaN left out."""
    found = {}
    for kind in kinds:
        if not why_not(kind, parts, capture):
            found |= effects.measure(parts, keep(kind, parts, capture)).get("output", {})
    return {name: float(v) for name, v in found.items() if float(v) == float(v)}


def broken(values):
    return {name: v for name, v in values.items() if v > TOLERANCE.get(name, float("inf"))}


def given_to(family, padding="right", packed=False):
    torch.manual_seed(3)
    given = batch(family, padding, packed)
    return given | ({"use_cache": False} if packed else {})


def conditions(family):
    """(padding, packed) of the batches that a family is given."""
    paddings = ("right",) if family in WITHOUT_MASK else ("right", "left", "none")
    return [(p, False) for p in paddings] + ([("none", True)] if family in PACKED else [])


def examine(family):
    """Metric -> (held when healthy, fired for its faults or None, why it is not measured)."""
    seen = [captured(make(family, 0.1), given_to(family, *c)) for c in conditions(family)]
    values = [measured(*each) for each in seen]
    cells = {}
    for name in TOLERANCE:
        if not any(name in found for found in values):
            cells[name] = (True, None, foreseen(*seen[0], Seen())[0].effects[name])
            continue
        fired = [fires(family, name, fault) for fault, own in MADE_FOR[name] if family in own]
        held = not any(name in broken(found) for found in values)
        cells[name] = (held, any(fired) if fired else None, "")
    return cells


def fires(family, name, fault):
    """Whether the contract breaks for the fault."""
    packed = name == "packing_effect"
    given = given_to(family, "none" if packed else "right", packed)
    parts, capture = captured(make(family, 0.1), given)
    fault(parts)
    return name in broken(measured(parts, capture, (name.rpartition("_")[0],)))
