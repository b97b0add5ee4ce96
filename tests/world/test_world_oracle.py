"""The best possible AUROC against brute force, and that nothing beats it."""

import itertools

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import sklearn.metrics

from fishjax.tasks.world_oracle import best_answers, best_possible_auroc, correctness_probability

_LEVELS = st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0])


def _expected_auroc(q, ranking):
    """Expected concordant over expected comparable pairs, by enumerating all gold draws."""
    concordant = comparable = 0.0
    for correct in itertools.product([0, 1], repeat=len(q)):
        chance = np.prod([p if c else 1 - p for p, c in zip(q, correct, strict=True)])
        for i, j in itertools.permutations(range(len(q)), 2):
            if correct[i] and not correct[j]:
                comparable += chance
                concordant += chance * ((ranking[i] > ranking[j]) + (ranking[i] == ranking[j]) / 2)
    return concordant / comparable if comparable else None


@hypothesis.given(st.lists(_LEVELS, min_size=1, max_size=6))
@hypothesis.settings(deadline=None, max_examples=60)
def test_equals_enumeration_of_all_gold_draws(q):
    expected = _expected_auroc(q, q)
    actual = best_possible_auroc(np.array(q))
    if expected is None:
        assert actual is None
    else:
        assert actual == pytest.approx(expected, abs=1e-12)


def test_no_other_ranking_is_better():
    q = [0.1, 0.9, 0.5, 0.7]
    best = best_possible_auroc(np.array(q))
    others = [_expected_auroc(q, ranking) for ranking in itertools.product(range(4), repeat=4)]
    assert max(others) == pytest.approx(best, abs=1e-12)


def test_agrees_with_the_auroc_of_a_large_draw():
    rng = np.random.default_rng(0)
    q = rng.choice([0.1, 0.5, 0.7, 0.9], size=40_000)
    realised = sklearn.metrics.roc_auc_score(rng.random(q.size) < q, q)
    # The standard error of an AUROC near .75 with 10,000 and more of either class is below .003.
    assert abs(realised - best_possible_auroc(q)) < 5 * 0.003


def test_probability_of_the_given_and_of_the_best_answer():
    shares = np.array([[0.9, 0.1], [0.5, 0.5], [0.3, 0.7]])
    np.testing.assert_array_equal(best_answers(shares), [0, 0, 1])
    chosen = np.array([1, 1, 1])
    np.testing.assert_allclose(correctness_probability(shares, chosen), [0.1, 0.5, 0.7])


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="add up to 1"):
        correctness_probability(np.array([[0.9, 0.2]]), np.array([0]))
    with pytest.raises(ValueError, match="must be below 2"):
        correctness_probability(np.array([[0.9, 0.1]]), np.array([2]))
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        best_possible_auroc(np.array([0.5, float("nan")]))
    assert best_possible_auroc(np.array([])) is None
