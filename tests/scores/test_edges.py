"""One answer, two answers, huge differences, long answers, exact zeros, not-a-number."""

import math
from decimal import Decimal, getcontext

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fishjax import scores

# One compilation a shape instead of one an operation.
evaluate_scores = jax.jit(scores.evaluate_scores)
log1mexp = jax.jit(scores.log1mexp)


def answers(log_likelihoods, gram, num_tokens=None, mask=None):
    ll = jnp.asarray([log_likelihoods])
    ones = jnp.ones(ll.shape, int)
    return scores.Answers(
        log_likelihoods=ll,
        gram=jnp.asarray([gram], ll.dtype),
        mask=jnp.asarray([mask]) if mask is not None else ones > 0,
        num_tokens=jnp.asarray([num_tokens]) if num_tokens is not None else ones,
        token_entropies=jnp.zeros_like(ll),
    )


def test_one_answer_has_exactly_no_choice_uncertainty():
    values = evaluate_scores(answers([-3.0], [[2.0]], [3]))
    assert float(values["epistemic"][0, 0]) == -math.inf
    assert float(values["aleatoric"][0, 0]) == -math.inf
    assert math.isnan(float(values["scale_free"][0, 0]))
    assert float(values["maximum_probability"][0, 0]) == 0.0
    assert float(values["margin"][0, 0]) == 1.0
    assert float(values["choice_entropy"][0, 0]) == 0.0
    assert float(values["exgrad"][0, 0]) == -math.inf
    expected = 2 * -3.0 + math.log(2.0)
    assert float(values["sequence_epistemic"][0, 0]) == pytest.approx(expected, rel=1e-6)
    assert float(values["perplexity"][0, 0]) == pytest.approx(1.0)


def test_two_answers_share_their_epistemic_uncertainty():
    # p_1 + p_2 = 1, so the gradients are opposite.
    values = evaluate_scores(answers([-1.0, -2.5], [[2.0, 0.3], [0.3, 1.0]]))
    pair = values["epistemic"][0]
    p = 1 / (1 + math.exp(-1.5))
    expected = math.log((p * (1 - p)) ** 2 * (2.0 + 1.0 - 0.6))
    np.testing.assert_allclose(pair, [expected, expected], rtol=1e-6)
    assert float(values["scale_free"][0, 0]) == pytest.approx(math.log(2.4), rel=1e-6)


@pytest.mark.parametrize("gap", [30.0, 300.0, 3000.0])
def test_a_certain_answer_keeps_its_relative_accuracy(gap):
    # p_1 = 1 - e^-gap: C_kk - 2 (Cp)_k + p'Cp cancels completely, the factored form does not.
    values = evaluate_scores(answers([-1.0, -1.0 - gap], [[5.0, 1.0], [1.0, 2.0]]))
    expected = -2 * gap + math.log(5.0 + 2.0 - 2.0)
    np.testing.assert_allclose(values["epistemic"][0], [expected, expected], rtol=1e-6)
    np.testing.assert_allclose(values["aleatoric"][0], [-gap, -gap], rtol=1e-6)
    np.testing.assert_allclose(values["scale_free"][0], np.log([5.0, 5.0]), rtol=1e-5)


def test_nearly_certain_answers_are_still_ranked():
    values = [
        evaluate_scores(answers([-1.0, -1.0 - gap], [[1.0, 0.0], [0.0, 1.0]])) for gap in (40, 60)
    ]
    log_p = [float(v["maximum_probability"][0, 0]) for v in values]
    np.testing.assert_allclose(log_p, [-math.exp(-40), -math.exp(-60)], rtol=1e-5)
    entropies = [float(v["choice_entropy"][0, 0]) for v in values]
    np.testing.assert_allclose(entropies, [41 * math.exp(-40), 61 * math.exp(-60)], rtol=1e-5)


def test_a_200_token_answer_does_not_underflow():
    case = answers([-800.0, -820.0], [[1e4, 0.0], [0.0, 1e4]], [200, 205])
    values = evaluate_scores(case)
    assert all(bool(jnp.isfinite(value).all()) for value in values.values())
    log_norm = math.log(1e4)
    assert float(values["sequence_epistemic"][0, 0]) == pytest.approx(-1600 + log_norm, rel=1e-6)
    assert float(values["sequence_aleatoric"][0, 0]) == pytest.approx(-800.0)
    assert float(values["sequence_scale_free"][0, 0]) == pytest.approx(log_norm, rel=1e-6)
    per_token = -8 + log_norm - 2 * math.log(200)
    assert float(values["normalised_sequence_epistemic"][0, 0]) == pytest.approx(per_token)


def test_a_sequence_of_probability_one_has_no_log_odds():
    values = evaluate_scores(answers([0.0, -1.0], [[1e-9, 0.0], [0.0, 1.0]]))
    assert math.isnan(float(values["sequence_scale_free"][0, 0]))
    assert float(values["sequence_aleatoric"][0, 0]) == -math.inf


def test_equal_gradients_are_an_exact_zero_and_small_negatives_are_clamped():
    same = evaluate_scores(answers([-1.0, -2.0], [[1.0, 1.0], [1.0, 1.0]]))
    assert float(same["epistemic"][0, 0]) == -math.inf
    rounded = evaluate_scores(answers([-1.0, -2.0], [[1.0, 1.0 + 1e-6], [1.0 + 1e-6, 1.0]]))
    assert float(rounded["epistemic"][0, 0]) == -math.inf


def test_not_a_number_stays_visible():
    values = evaluate_scores(answers([-1.0, -2.0], [[math.nan, 0.0], [0.0, 1.0]]))
    assert math.isnan(float(values["epistemic"][0, 0]))
    broken = evaluate_scores(answers([math.nan, -2.0], [[1.0, 0.0], [0.0, 1.0]]))
    assert math.isnan(float(broken["maximum_probability"][0, 0]))


def test_answers_that_do_not_exist_change_nothing():
    rng = np.random.default_rng(0)
    root = rng.normal(size=(3, 5))
    gram = root @ root.T
    plain = evaluate_scores(answers([-4.0, -2.0, -3.0], gram, [2, 3, 4]))
    padded_gram = np.full((5, 5), np.nan)
    padded_gram[:3, :3] = gram
    padded_gram[3:, :] = padded_gram[:, 3:] = 0.0
    padded = evaluate_scores(
        answers(
            [-4.0, -2.0, -3.0, 9.0, 0.0], padded_gram, [2, 3, 4, 0, 0], [True] * 3 + [False] * 2
        )
    )
    for name, value in plain.items():
        np.testing.assert_allclose(padded[name][0, :3], value[0], rtol=1e-6, err_msg=name)


@given(st.lists(st.floats(-50, 0), min_size=2, max_size=5), st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_laws_of_the_choice_probabilities(log_likelihoods, seed):
    k = len(log_likelihoods)
    root = np.random.default_rng(seed).normal(size=(5, 8))
    padded = np.array(log_likelihoods + [0.0] * (5 - k))
    with jax.enable_x64(True):
        case = answers(padded, root @ root.T, mask=[True] * k + [False] * (5 - k))
        values = {name: np.asarray(v)[0, :k] for name, v in evaluate_scores(case).items()}
    assert 1 / k - 1e-12 <= np.exp(values["maximum_probability"][0]) <= 1.0
    assert -1e-12 <= values["choice_entropy"][0] <= math.log(k) + 1e-12
    # The gradients sum to zero, so no norm exceeds the sum of the others.
    norms = np.exp(0.5 * values["epistemic"])
    assert norms.max() <= norms.sum() - norms.max() + 1e-9 * norms.sum()
    assert (values["aleatoric"] <= math.log(0.25) + 1e-12).all()


def test_choose_takes_the_lowest_index_and_reports_ties():
    ll = jnp.array([[-2.0, -1.0, -1.0], [-1.0, -3.0, 5.0], [-1.0, -2.0, -3.0]])
    mask = jnp.array([[True] * 3, [True, True, False], [True] * 3])
    choice = scores.choose(ll, mask)
    np.testing.assert_array_equal(choice.index, [1, 0, 0])
    np.testing.assert_array_equal(choice.tied, [True, False, False])
    np.testing.assert_array_equal(scores.take_chosen(ll, choice.index), [-1.0, -1.0, -1.0])


@given(st.floats(-100.0, -1e-12))
@settings(max_examples=100, deadline=None)
def test_log1mexp_equals_sixty_digit_arithmetic(x):
    getcontext().prec = 60
    expected = float((Decimal(1) - Decimal(x).exp()).ln())
    with jax.enable_x64(True):
        assert float(log1mexp(jnp.asarray(x))) == pytest.approx(expected, rel=1e-13)


def test_log1mexp_at_its_ends():
    ends = scores.log1mexp(jnp.array([0.0, -jnp.inf, 1.0]))
    np.testing.assert_array_equal(ends, [-jnp.inf, 0.0, jnp.nan])


def test_shares_of_a_single_answer_are_those_of_its_sequence():
    """The choice is certain, but how likely the answer was still depends on the weights."""
    grams = {"w": jnp.full((1, 1, 1), 1.0), "v": jnp.full((1, 1, 1), 3.0)}
    one = jnp.full((1, 1), -2.0), jnp.ones((1, 1), bool), jnp.zeros(1, int)
    shares = scores.parameter_shares(one[0], grams, *one[1:])
    assert {name: float(share[0]) for name, share in shares.items()} == {"w": 0.25, "v": 0.75}
    none = {name: 0 * gram for name, gram in grams.items()}
    assert math.isnan(float(scores.parameter_shares(one[0], none, *one[1:])["w"][0]))
