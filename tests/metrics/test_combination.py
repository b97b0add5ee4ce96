"""Supervised combination against scikit-learn on the same folds, and the laws of its folds."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from fishjax import metrics


def data(seed, n=150):
    """Two scores that each tell part of the label, and one that tells nothing."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(3, n))
    positive = rng.random(n) < 1 / (1 + np.exp(-(x[0] - 1.5 * x[1])))
    return {"a": 3.0 * x[0] + 7.0, "b": x[1], "noise": x[2]}, positive


def combine(scores, positive, seed=0, num_repeats=1, **settings):
    rng = np.random.default_rng(seed)
    found = metrics.combine_scores(scores, positive, rng=rng, num_repeats=num_repeats, **settings)
    assert found is not None
    return found


def test_probabilities_and_coefficients_equal_sklearn():
    scores, positive = data(0)
    ours = combine(scores, positive, ridge=0.5)
    features = np.stack(list(scores.values()), axis=1)
    weights = []
    for fold in range(5):
        train, test = ours.folds != fold, ours.folds == fold
        mean, scale = features[train].mean(0), features[train].std(0)
        theirs = LogisticRegression(C=2.0, tol=1e-12, max_iter=10_000)
        theirs.fit((features[train] - mean) / scale, positive[train])
        expected = theirs.predict_proba((features[test] - mean) / scale)[:, 1]
        np.testing.assert_allclose(ours.probabilities[test], expected, rtol=1e-5, atol=1e-7)
        weights.append(theirs.coef_[0])
    mean = [c.mean for c in ours.coefficients.values()]
    spread = [c.spread for c in ours.coefficients.values()]
    np.testing.assert_allclose(mean, np.mean(weights, axis=0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(spread, np.std(weights, axis=0, ddof=1), rtol=1e-3, atol=1e-6)
    assert list(ours.coefficients) == ["a", "b", "noise"]
    assert ours.supervised


def test_two_partial_scores_beat_each_alone():
    scores, positive = data(1, n=400)
    ours = combine(scores, positive)
    alone = [metrics.auroc(s * v, positive) for v in scores.values() for s in (1, -1)]
    assert all(a is not None and ours.auroc > a for a in alone)
    assert ours.interval.low <= ours.auroc <= ours.interval.high
    assert ours.auroc == metrics.auroc(ours.probabilities, positive)
    assert ours.coefficients["a"].mean > 0 > ours.coefficients["b"].mean


def test_repeats_are_the_aurocs_of_other_folds_and_their_mean_is_reported():
    scores, positive = data(9)
    groups = np.arange(150) // 2
    for group in (None, groups):
        found = combine(scores, positive, num_repeats=6, groups=group)
        rng = np.random.default_rng(0)
        alone = []
        for _ in range(6):  # the bootstrap spawns streams: only the folds advance a generator
            one = metrics.combine_scores(scores, positive, rng=rng, num_repeats=1, groups=group)
            assert one is not None
            alone.append(one)
        np.testing.assert_allclose(found.repeats, [one.auroc for one in alone])
        assert found.auroc == pytest.approx(np.mean([one.auroc for one in alone]))
        assert found.spread == pytest.approx(np.std([one.auroc for one in alone], ddof=1))
        assert found.spread > 0
        np.testing.assert_array_equal(found.probabilities, alone[0].probabilities)
        np.testing.assert_array_equal(found.folds, alone[0].folds)
        means = [one.coefficients["a"].mean for one in alone]
        assert found.coefficients["a"].mean == pytest.approx(np.mean(means))
        assert found.interval.low < found.auroc < found.interval.high
    assert combine(scores, positive).spread is None


def test_scores_that_tell_nothing_stay_at_one_half():
    """Standard error sqrt((n + 1) / (12 m (n - m))), 5 of them; a leak would show above."""
    rng = np.random.default_rng(2)
    positive = np.arange(300) % 2 == 0
    ours = combine({str(i): rng.normal(size=300) for i in range(5)}, positive)
    assert abs(ours.auroc - 0.5) < 5 * np.sqrt(301 / (12 * 150 * 150))


def test_a_seed_decides_everything():
    scores, positive = data(3)
    first, again, other = (combine(scores, positive, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.probabilities, again.probabilities)
    assert first.interval == again.interval
    assert not np.array_equal(first.folds, other.folds)


def test_the_unit_and_the_sign_of_a_score_do_not_matter():
    scores, positive = data(4)
    changed = {"a": -5.0 * scores["a"] + 1.0, "b": 1e-9 * scores["b"], "noise": scores["noise"]}
    ours, theirs = combine(scores, positive), combine(changed, positive)
    np.testing.assert_allclose(ours.probabilities, theirs.probabilities, rtol=1e-7)
    assert ours.coefficients["a"].mean == pytest.approx(-theirs.coefficients["a"].mean, rel=1e-6)


def test_a_missing_score_leaves_its_question_out_and_is_counted():
    scores, positive = data(5)
    scores["a"][[3, 10]] = np.nan
    scores["b"][[10, 77]] = np.nan
    ours = combine(scores, positive)
    kept = np.ones(positive.size, bool)
    kept[[3, 10, 77]] = False
    assert (ours.num_used, ours.num_missing) == (147, 3)
    np.testing.assert_array_equal(np.isnan(ours.probabilities), ~kept)
    np.testing.assert_array_equal(ours.folds == -1, ~kept)
    alone = combine({name: v[kept] for name, v in scores.items()}, positive[kept])
    np.testing.assert_array_equal(ours.probabilities[kept], alone.probabilities)
    assert ours.auroc == alone.auroc


@pytest.mark.parametrize("value", [0.0, 0.1, -1e6])
def test_a_constant_score_has_no_weight(value):
    """0.1 repeated has a standard deviation of 1e-17 by rounding: not a scale to divide by."""
    scores, positive = data(6)
    ours = combine(scores | {"constant": np.full(150, value)}, positive)
    assert ours.coefficients["constant"] == (0.0, 0.0)
    np.testing.assert_allclose(ours.probabilities, combine(scores, positive).probabilities)


def test_a_score_that_varies_in_one_fold_only_is_harmless():
    scores, positive = data(7)
    rare = np.full(150, 0.1)
    rare[combine(scores, positive).folds == 2] = 5.0
    ours = combine(scores | {"rare": rare}, positive)
    assert np.isfinite(ours.probabilities).all()
    assert ours.coefficients["rare"].spread > 0


def test_only_constant_scores_predict_the_share_of_positives():
    positive = np.arange(50) < 20
    ours = combine({"constant": np.ones(50)}, positive)
    np.testing.assert_allclose(ours.probabilities, 0.4, atol=1e-6)


def test_groups_stay_together():
    scores, positive = data(8)
    groups = [f"question {i // 3}" for i in range(150)]
    ours = combine(scores, positive, groups=groups)
    for group in set(groups):
        assert len({ours.folds[i] for i in range(150) if groups[i] == group}) == 1
    numbers = np.arange(150) // 3
    np.testing.assert_array_equal(combine(scores, positive, groups=numbers).folds, ours.folds)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_grouped_folds_are_even(drawn):
    """Groups in one fold each; groups of one example: every class within 1."""
    sizes = drawn.draw(st.lists(st.integers(1, 4), min_size=10, max_size=30))
    groups = np.repeat(np.arange(len(sizes)), sizes)
    labels = np.array(
        drawn.draw(st.lists(st.booleans(), min_size=groups.size, max_size=groups.size))
    )
    rng = np.random.default_rng(drawn.draw(st.integers(0, 9)))
    folds = metrics.grouped_folds(labels, groups, 3, rng)
    assert folds.shape == labels.shape
    assert set(folds) <= {0, 1, 2}
    assert all(np.unique(folds[groups == g]).size == 1 for g in groups)
    single = metrics.grouped_folds(labels, np.arange(groups.size), 3, rng)
    for members in (labels, ~labels):
        counts = np.bincount(single[members], minlength=3)
        assert counts.max() - counts.min() <= 1


def test_grouped_folds_keep_large_groups_apart():
    """Groups of 6, 6, 6 and twelve of 1 on three folds: 6 + 4 in each."""
    groups = np.r_[np.repeat([0, 1, 2], 6), np.arange(3, 15)]
    labels = np.arange(30) % 2 == 0
    folds = metrics.grouped_folds(labels, groups, 3, np.random.default_rng(0))
    np.testing.assert_array_equal(np.bincount(folds), [10, 10, 10])
    np.testing.assert_array_equal(np.bincount(folds[labels]), [5, 5, 5])


def test_a_rare_class_is_spread_before_sizes_are_made_even():
    """Groups of (negatives, positives) (5, 0), (3, 1), (2, 1): folds (7, 1) and (3, 1)."""
    groups = np.repeat([0, 1, 2], [5, 4, 3])
    labels = np.zeros(12, bool)
    labels[[8, 11]] = True
    folds = metrics.grouped_folds(labels, groups, 2, np.random.default_rng(0))
    np.testing.assert_array_equal(folds, groups % 2)


def test_single_examples_fill_empty_folds_first():
    for seed in range(5):
        rng = np.random.default_rng(seed)
        folds = metrics.grouped_folds(np.array([True, False, False]), np.arange(3), 3, rng)
        assert set(folds) == {0, 1, 2}


def test_groups_that_leave_a_training_part_with_one_class_are_undefined():
    """Groups (100, 0), (0, 99), (40, 1) on two folds: the last crowds the first fold by
    100 · 40 / 140² = 0.20 and the second by 99 / 100² = 0.01, which then has all positives.
    """
    groups = np.repeat([0, 1, 2], [100, 99, 41])
    labels = (groups == 1) | (np.arange(240) == 239)
    folds = metrics.grouped_folds(labels, groups, 2, np.random.default_rng(0))
    assert np.unique(folds[labels]).size == 1
    scores = {"a": np.arange(240.0)}
    rng = np.random.default_rng(0)
    assert metrics.combine_scores(scores, labels, rng=rng, groups=groups, num_folds=2) is None


def test_undefined_combinations_are_none():
    scores, positive = data(9)
    rng = np.random.default_rng(0)
    for labels in (np.ones(150, bool), np.zeros(150, bool), np.arange(150) < 4):
        assert metrics.combine_scores(scores, labels, rng=rng) is None
    # Many positives, but of three questions only.
    groups = np.where(positive, np.arange(150) % 3, np.arange(150))
    assert metrics.combine_scores(scores, positive, rng=rng, groups=groups) is None
    missing = {"a": np.full(150, np.nan)}
    assert metrics.combine_scores(missing, positive, rng=rng) is None
    assert metrics.combine_scores({"a": np.empty(0)}, np.empty(0, bool), rng=rng) is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scores": {}}, "no score"),
        ({"scores": {"a": np.zeros(3)}}, "a: 3 values for 150 labels"),
        ({"scores": {"a": np.full(150, -np.inf)}}, "a: 150 infinite values"),
        ({"groups": [1, 2]}, "groups: 2 values"),
        ({"num_folds": 1}, "num_folds=1"),
    ],
)
def test_bad_input_is_refused(change, message):
    scores, positive = data(10)
    arguments = {"scores": scores, "positive": positive} | change
    with pytest.raises(ValueError, match=message):
        metrics.combine_scores(**arguments, rng=np.random.default_rng(0))
