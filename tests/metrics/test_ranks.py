"""Rank correlations against scipy and against a regression written out by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fishjax import metrics

INTEGERS = st.lists(st.integers(-4, 4), min_size=2, max_size=30)


def as_array(values):
    return np.array(values, dtype=np.float64)


@given(INTEGERS)
@settings(max_examples=100, deadline=None)
def test_average_ranks_equal_scipy(values):
    np.testing.assert_array_equal(
        metrics.average_ranks(as_array(values)), stats.rankdata(values, method="average")
    )


def test_ranks_take_infinities_and_refuse_nan():
    ranks = metrics.average_ranks(as_array([np.inf, -np.inf, 0.0, -np.inf]))
    np.testing.assert_array_equal(ranks, [4.0, 1.5, 3.0, 1.5])
    with pytest.raises(ValueError, match="1 of 2 values are NaN"):
        metrics.average_ranks(as_array([np.nan, 1.0]))


@given(INTEGERS, st.randoms(use_true_random=False))
@settings(max_examples=100, deadline=None)
def test_spearman_equals_scipy(values, random):
    other = [random.randint(-4, 4) for _ in values]
    ours = metrics.spearman(as_array(values), as_array(other))
    if len(set(values)) == 1 or len(set(other)) == 1:
        assert ours is None
    else:
        theirs = stats.spearmanr(values, other).statistic
        assert ours == pytest.approx(float(theirs), abs=1e-12)


def test_partial_spearman_with_one_covariate_equals_the_closed_form():
    rng = np.random.default_rng(0)
    z = rng.normal(size=80)
    x, y = z + rng.normal(size=80), z**3 + rng.normal(size=80)
    xy, xz, yz = (stats.spearmanr(a, b).statistic for a, b in ((x, y), (x, z), (y, z)))
    expected = (xy - xz * yz) / np.sqrt((1 - xz**2) * (1 - yz**2))
    assert metrics.partial_spearman(x, y, z[:, None]) == pytest.approx(float(expected), abs=1e-12)


def test_partial_spearman_with_two_covariates_equals_the_precision_matrix():
    rng = np.random.default_rng(1)
    data = rng.normal(size=(60, 4)) @ rng.normal(size=(4, 4))
    precision = np.linalg.inv(stats.spearmanr(data).statistic)
    expected = -precision[0, 1] / np.sqrt(precision[0, 0] * precision[1, 1])
    ours = metrics.partial_spearman(data[:, 0], data[:, 1], data[:, 2:])
    assert ours == pytest.approx(float(expected), abs=1e-10)


def test_partial_spearman_without_covariates_is_spearman():
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=20), rng.normal(size=20)
    ours = metrics.partial_spearman(x, y, np.empty((20, 0)))
    assert ours == pytest.approx(metrics.spearman(x, y), abs=1e-12)


def test_partial_spearman_is_undefined_when_the_covariate_explains_everything():
    x = np.arange(10.0)
    assert metrics.partial_spearman(x, np.random.default_rng(0).normal(size=10), x[:, None]) is None
    assert metrics.partial_spearman(np.ones(10), x, x[::-1, None].copy() ** 2) is None
    assert metrics.partial_spearman(x[:3], x[:3], x[:3, None]) is None
