"""The registry is complete, unique, documented, and its ranges hold."""

import math

import jax.numpy as jnp
import numpy as np

from fishjax import scores

PLAIN = (*scores.GENERATION_SCORES, *scores.ASKED_SCORES)
EVERY = (*scores.SCORES, *scores.TOKEN_SCORES, *PLAIN)


def test_names_are_unique_and_directions_known():
    names = [score.name for score in EVERY]
    assert len(set(names)) == len(names)
    assert set(scores.DIRECTIONS) == set(names)
    assert set(names) >= scores.LOGARITHMIC


def test_every_docstring_states_direction_range_and_unit():
    for score in EVERY:
        doc = score.function.__doc__ or ""
        assert score.function.__name__ in (score.name, "parse_confidence")
        low = doc.lower()
        assert all(word in low for word in ("direction", "range", "unit")), score.name
        if isinstance(score, scores.Score | scores.PlainScore):
            stated = "more uncertain" if score.direction.value < 0 else "more confident"
            assert stated in " ".join(doc.split()), score.name
        if isinstance(score, scores.Score):
            assert score.logarithmic == doc.startswith("Log"), score.name


def test_every_value_is_within_its_range():
    rng = np.random.default_rng(0)
    root = rng.normal(size=(50, 4, 9))
    answers = scores.Answers(
        log_likelihoods=jnp.asarray(-rng.exponential(5.0, size=(50, 4)), jnp.float32),
        gram=jnp.asarray(root @ root.transpose(0, 2, 1), jnp.float32),
        mask=jnp.ones((50, 4), bool),
        num_tokens=jnp.asarray(rng.integers(1, 9, size=(50, 4))),
        token_entropies=jnp.asarray(rng.random((50, 4)), jnp.float32),
    )
    values = scores.evaluate_scores(answers)
    for score in scores.SCORES:
        value = np.asarray(values[score.name], np.float64)
        assert value.shape == (50, 4)
        low, high = score.low, score.high
        if score.logarithmic:
            low = math.log(low) if low > 0 else -math.inf
            high = math.log(high)
        assert (value >= low - 1e-6).all(), score.name
        assert (value <= high + 1e-6).all(), score.name


def test_scores_that_compare_answers_say_nothing_of_a_single_one():
    rng = np.random.default_rng(1)
    answers = scores.Answers(
        log_likelihoods=jnp.asarray(-rng.exponential(5.0, size=(50, 1)), jnp.float32),
        gram=jnp.asarray(rng.exponential(5.0, size=(50, 1, 1)), jnp.float32),
        mask=jnp.ones((50, 1), bool),
        num_tokens=jnp.asarray(rng.integers(1, 9, size=(50, 1))),
        token_entropies=jnp.asarray(rng.random((50, 1)), jnp.float32),
    )
    silent = {
        name
        for name, values in scores.evaluate_scores(answers).items()
        if len(np.unique(np.asarray(values), equal_nan=True)) == 1
    }
    assert silent == scores.COMPARING
