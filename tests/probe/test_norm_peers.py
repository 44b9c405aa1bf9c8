"""A norm's gamma against those of the other norms."""

import pytest
import torch

from probe.measure.norm import against_peers


def gaps(**levels):
    """Gaps by site, of norms with these levels of gamma."""
    sites = {site: {"gamma_norm": torch.tensor(level)} for site, level in levels.items()}
    against_peers(sites)
    return {site: float(values["gamma_gap"]) for site, values in sites.items()}


def of_layers(*levels, final):
    return gaps(**{f"norm_ffn@{at}": level for at, level in enumerate(levels)}, norm_final=final)


def test_a_gamma_unlike_its_equal_peers_is_a_gap():
    found = of_layers(1.0, 1.0, 2.0, 1.0, final=1.0)
    assert found["norm_ffn@2"] == pytest.approx(1.0)
    assert [found[site] for site in found if site != "norm_ffn@2"] == [0.0] * 4


def test_gammas_that_training_drove_apart_are_none():
    found = of_layers(0.3, 0.55, 0.8, 1.1, 1.6, final=1.9)
    assert all(abs(gap) < 0.5 for gap in found.values())


def test_of_the_final_norm_twice_as_much_is_allowed():
    assert of_layers(1.0, 1.0, 1.0, final=1.45)["norm_final"] == pytest.approx(0.268, abs=1e-3)
    assert abs(of_layers(1.0, 1.0, 1.0, final=4.0)["norm_final"]) > 0.5


def test_one_norm_has_no_peers():
    sites = {"norm_final": {"gamma_norm": torch.tensor(1.0)}}
    against_peers(sites)
    assert "gamma_gap" not in sites["norm_final"]
