"""Calibration measures against loops written from their definitions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss, log_loss

from fishjax import metrics


def brute_force_ece(confidence, correct, num_bins):
    total = 0.0
    for b in range(num_bins):
        low, high = b / num_bins, (b + 1) / num_bins
        inside = (confidence > low) & (confidence <= high)
        if b == 0:
            inside |= confidence == 0
        if inside.any():
            gap = abs(correct[inside].mean() - confidence[inside].mean())
            total += inside.sum() / confidence.size * gap
    return total


@given(st.lists(st.tuples(st.integers(0, 30), st.booleans()), min_size=1, max_size=40))
@settings(max_examples=100, deadline=None)
def test_ece_equals_brute_force_on_and_off_the_bin_edges(examples):
    confidence = np.array([e[0] for e in examples]) / 30
    correct = np.array([e[1] for e in examples])
    for num_bins in (1, 15):
        ours = metrics.expected_calibration_error(confidence, correct, num_bins=num_bins)
        assert ours == pytest.approx(brute_force_ece(confidence, correct, num_bins), abs=1e-12)


def test_confidences_zero_and_one_are_in_the_end_bins():
    confidence, correct = np.array([0.0, 1.0, 1.0]), np.array([False, True, False])
    assert metrics.expected_calibration_error(confidence, correct) == pytest.approx(1 / 3)


@pytest.mark.parametrize("value", [-0.1, 1.5, np.nan])
def test_ece_refuses_what_is_not_a_probability(value):
    with pytest.raises(ValueError, match="outside"):
        metrics.expected_calibration_error(np.array([value]), np.array([True]))


def test_brier_and_nll_equal_sklearn():
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(2), size=50)
    y = rng.integers(0, 2, 50)
    targets = np.eye(2)[y]
    two_class = brier_score_loss(y, p[:, 1])  # sums over one class only
    assert metrics.brier_score(p, targets) == pytest.approx(2 * two_class, abs=1e-12)
    nll = metrics.negative_log_likelihood(np.log(p[np.arange(50), y]))
    assert nll == pytest.approx(log_loss(y, p), abs=1e-12)


def test_padding_classes_does_not_change_brier():
    p, y = np.array([[0.3, 0.7]]), np.array([[1.0, 0.0]])
    padded = (np.pad(p, ((0, 0), (0, 3))), np.pad(y, ((0, 0), (0, 3))))
    assert metrics.brier_score(*padded) == metrics.brier_score(p, y) == pytest.approx(0.98)


def test_no_example_is_undefined():
    empty, none = np.empty(0), np.empty(0, dtype=bool)
    assert metrics.accuracy(none) is None
    assert metrics.expected_calibration_error(empty, none) is None
    assert metrics.negative_log_likelihood(empty) is None
    assert metrics.brier_score(np.empty((0, 2)), np.empty((0, 2))) is None
    assert metrics.accuracy(np.array([True, False, True, True])) == 0.75
