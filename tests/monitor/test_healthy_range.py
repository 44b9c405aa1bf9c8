import math

import pytest

from monitor.healthy_range import healthy_range
from probe.catalogue import METRICS
from probe.schema import Metric


def metric(form, healthy, contract=False):
    return Metric("m", ("n",), form, "", "", healthy, contract=contract, tolerance=0.5)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (metric("residual", "0", True), (0.0, 0.5)),
        (metric("signed", "0", True), (-0.5, 0.5)),
        (metric("positive", "1e-4 to 1e-2"), (1e-4, 1e-2)),
        (metric("statistic", "below 1"), (-math.inf, 1.0)),
        (metric("positive", "steady"), None),
        (metric("share", "above 0"), None),
        (None, None),
    ],
)
def test_ranges_are_read_from_definitions(given, expected):
    assert healthy_range(given) == expected


def test_every_contract_of_the_catalogue_has_a_range():
    for found in METRICS:
        if found.contract:
            low, high = healthy_range(found)
            assert low <= 0 < high
