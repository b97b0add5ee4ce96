"""Risk–coverage area: mean over every order of the ties, by enumeration."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fishjax import metrics

EXAMPLES = st.lists(st.tuples(st.integers(0, 2), st.booleans()), min_size=1, max_size=6)


def split(examples):
    return (
        np.array([e[0] for e in examples], dtype=np.float64),
        np.array([e[1] for e in examples], dtype=bool),
    )


def enumerated_aurc(confidence, correct):
    """The mean over all permutations that are sorted by falling confidence."""
    areas = []
    for order in itertools.permutations(range(len(correct))):
        if all(confidence[a] >= confidence[b] for a, b in itertools.pairwise(order)):
            errors = [not correct[i] for i in order]
            areas.append(np.mean([np.mean(errors[: i + 1]) for i in range(len(errors))]))
    return float(np.mean(areas))


@given(EXAMPLES)
@settings(max_examples=50, deadline=None)
def test_aurc_averages_over_tie_orders(examples):
    confidence, correct = split(examples)
    expected = enumerated_aurc(confidence, correct)
    assert metrics.aurc(confidence, correct) == pytest.approx(expected, abs=1e-12)


@given(EXAMPLES, st.randoms(use_true_random=False))
@settings(max_examples=50, deadline=None)
def test_input_order_does_not_matter(examples, random):
    shuffled = list(examples)
    random.shuffle(shuffled)
    first, second = metrics.aurc(*split(examples)), metrics.aurc(*split(shuffled))
    assert first == pytest.approx(second, abs=1e-12)


def test_prr_is_one_for_the_oracle_and_zero_for_a_constant():
    correct = np.array([True, False, True, False, True])
    oracle = metrics.prediction_rejection_ratio(correct.astype(float), correct)
    constant = metrics.prediction_rejection_ratio(np.zeros(5), correct)
    reversed_ = metrics.prediction_rejection_ratio(-correct.astype(float), correct)
    assert oracle == pytest.approx(1.0)
    assert constant == pytest.approx(0.0, abs=1e-12)
    assert reversed_ is not None
    assert reversed_ < 0


def test_undefined_cases():
    ones = np.ones(3, dtype=bool)
    assert metrics.prediction_rejection_ratio(np.arange(3.0), ones) is None
    assert metrics.prediction_rejection_ratio(np.arange(3.0), ~ones) is None
    assert metrics.aurc(np.empty(0), np.empty(0, dtype=bool)) is None
    with pytest.raises(ValueError, match="NaN"):
        metrics.aurc(np.array([np.nan]), np.array([True]))
