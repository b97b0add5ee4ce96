"""AUROC against scikit-learn and brute force, and the laws of its interval."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from fishjax import metrics

EXAMPLES = st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=1, max_size=40)


def split(examples):
    scores, labels = zip(*examples, strict=True)
    return np.array(scores, dtype=np.float64), np.array(labels, dtype=bool)


@given(EXAMPLES)
@settings(max_examples=150, deadline=None)
def test_auroc_equals_sklearn(examples):
    scores, labels = split(examples)
    ours = metrics.auroc(scores, labels)
    if labels.all() or not labels.any():
        assert ours is None
    else:
        assert ours == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)


@given(EXAMPLES)
@settings(max_examples=50, deadline=None)
def test_reversing_the_sign_reflects_about_one_half(examples):
    scores, labels = split(examples)
    ours = metrics.auroc(scores, labels)
    if ours is not None:
        assert metrics.auroc(-scores, labels) == pytest.approx(1 - ours, abs=1e-12)


def test_infinite_scores_rank_as_the_extremes():
    scores = np.array([-np.inf, 0.0, 1.0, np.inf])
    assert metrics.auroc(scores, np.array([False, False, True, True])) == 1.0


def test_every_resample_equals_auroc_of_the_resampled_examples():
    # The interval of one resample is that resample's AUROC at both ends, so the vectorised
    # weights can be checked against an explicit draw from the same generator.
    rng = np.random.default_rng(0)
    scores, labels = rng.integers(0, 5, 30).astype(float), rng.random(30) < 0.4
    for seed in range(20):
        intervals = metrics.auroc_intervals(
            scores[None], labels, rng=np.random.default_rng(seed), num_resamples=1
        )
        streams = np.random.default_rng(seed).spawn(2)
        classes = (np.flatnonzero(labels), np.flatnonzero(~labels))
        index = np.concatenate(
            [m[s.integers(0, m.size, m.size)] for m, s in zip(classes, streams, strict=True)]
        )
        expected = roc_auc_score(labels[index], scores[index])
        assert intervals is not None
        assert intervals[0].low == pytest.approx(expected, abs=1e-12)
        assert intervals[0].high == pytest.approx(expected, abs=1e-12)


def test_interval_matches_the_normal_approximation_of_a_large_sample():
    # DeLong's variance, computed here by brute force over pairs.
    rng = np.random.default_rng(1)
    labels = np.arange(600) % 2 == 0
    scores = rng.normal(size=600) + labels
    wins = (scores[labels][:, None] > scores[~labels][None, :]).astype(float)
    variance = wins.mean(1).var(ddof=1) / 300 + wins.mean(0).var(ddof=1) / 300
    half = 1.959964 * np.sqrt(variance)
    intervals = metrics.auroc_intervals(scores[None], labels, rng=rng, num_resamples=4000)
    assert intervals is not None
    # 4000 resamples place a 2.5 % quantile within 5 standard errors (about 0.13 sigma each).
    assert intervals[0].low == pytest.approx(wins.mean() - half, abs=0.25 * np.sqrt(variance))
    assert intervals[0].high == pytest.approx(wins.mean() + half, abs=0.25 * np.sqrt(variance))


def test_intervals_are_seeded_and_do_not_depend_on_the_chunk_size(monkeypatch):
    rng = np.random.default_rng(2)
    scores, labels = rng.normal(size=(2, 50)), rng.random(50) < 0.5
    first, again, other = (
        metrics.auroc_intervals(scores, labels, rng=np.random.default_rng(s)) for s in (3, 3, 4)
    )
    assert first == again
    assert first != other
    monkeypatch.setattr("fishjax.metrics.roc._CHUNK_ELEMENTS", 50 * 7)
    assert metrics.auroc_intervals(scores, labels, rng=np.random.default_rng(3)) == first


def test_one_class_has_no_interval():
    ones = np.ones(4, dtype=bool)
    assert metrics.auroc_intervals(np.zeros((1, 4)), ones, rng=np.random.default_rng(0)) is None
    with pytest.raises(ValueError, match="level=2"):
        metrics.auroc_intervals(np.zeros((1, 4)), ones, rng=np.random.default_rng(0), level=2.0)
