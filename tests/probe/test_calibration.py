from __future__ import annotations

import numpy as np
import pytest
import torch

import probe

ONE_BIN = ([[0.9, 0.1]] * 10, [0] * 9 + [1])


def test_confidence_that_matches_accuracy_is_no_error_and_too_much_of_it_is():
    shares, labels = ONE_BIN
    assert probe.calibration_error(shares, labels) == pytest.approx(0.0, abs=1e-12)
    assert probe.calibration_error(shares, [0] * 5 + [1] * 5) == pytest.approx(0.4)


def test_intervals_are_weighed_by_their_items():
    shares = [[0.65, 0.35]] * 2 + [[1.0, 0.0]] * 6
    labels = [0, 0, *[0] * 3, *[1] * 3]
    assert probe.calibration_error(shares, labels) == pytest.approx((2 * 0.35 + 6 * 0.5) / 8)
    # In one interval over- and underconfidence cancel.
    merged = abs(2 * 0.35 - 6 * 0.5) / 8
    assert probe.calibration_error(shares, labels, bins=1) == pytest.approx(merged)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_logits_and_tensors_give_what_their_probabilities_give(dtype):
    torch.manual_seed(0)
    logits = (3 * torch.randn(2, 50, 7)).to(dtype).requires_grad_()
    labels = torch.randint(0, 7, (2, 50))
    shares = torch.softmax(logits.double(), dim=-1)
    assert probe.calibration_error(logits, labels) == pytest.approx(
        probe.calibration_error(shares, labels)
    )


def test_labels_below_zero_do_not_count():
    shares, labels = ONE_BIN
    more = np.concatenate([shares, [[0.2, 0.8]] * 5])
    assert probe.calibration_error(more, labels + [-100] * 5) == pytest.approx(0.0, abs=1e-12)
    assert np.isnan(probe.calibration_error(shares, [-100] * 10))


@pytest.mark.parametrize(
    ("shares", "labels", "bins", "told"),
    [
        (np.zeros((3, 2)), np.zeros(4), 10, "do not fit"),
        (np.zeros(3), np.zeros(3), 10, "do not fit"),
        (np.zeros((2, 2)), np.array([0, 2]), 10, "label 2 is none of the 2 classes"),
        (*ONE_BIN, 0, "bins"),
    ],
)
def test_what_does_not_fit_is_said(shares, labels, bins, told):
    with pytest.raises(ValueError, match=told):
        probe.calibration_error(shares, labels, bins)
