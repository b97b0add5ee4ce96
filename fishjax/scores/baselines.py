"""Cheap scores that need no gradient, and three relatives made of the gradients of all answers."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fishjax.scores.answers import Answers
from fishjax.scores.log_space import log_probabilities, masked_logsumexp
from fishjax.scores.score import Direction, Score
from fishjax.scores.uncertainty import of_choice

__all__ = [
    "BASELINE_SCORES",
    "choice_entropy",
    "exgrad",
    "fisher_trace",
    "gradnorm",
    "margin",
    "maximum_probability",
    "mean_token_entropy",
    "perplexity",
]


def maximum_probability(answers: Answers) -> Float[Array, "Q K"]:
    """Log of the highest choice-normalised probability of the question.

    Direction: higher is more confident. Range: [1/K, 1]. Unit: probability.
    """
    log_p = log_probabilities(answers.log_likelihoods, answers.mask)
    return jnp.broadcast_to(jnp.max(log_p, axis=1, keepdims=True), log_p.shape)


def margin(answers: Answers) -> Float[Array, "Q K"]:
    r"""$p_k - \max_{j \ne k} p_j$; for the chosen answer its lead over the runner-up.

    A single answer has margin 1. Direction: higher is more confident. Range: [-1, 1], for the
    chosen answer [0, 1]. Unit: probability.
    """
    p = jnp.exp(log_probabilities(answers.log_likelihoods, answers.mask))
    itself = jnp.eye(p.shape[1], dtype=bool)
    rivals = jnp.where(itself, 0.0, p[:, None, :])
    return p - jnp.max(rivals, axis=2)


def choice_entropy(answers: Answers) -> Float[Array, "Q K"]:
    r"""Entropy $-\sum_k p_k \log p_k$ of the choice-normalised probabilities.

    Direction: higher is more uncertain. Range: $[0, \log K]$. Unit: nats.
    """
    log_p = log_probabilities(answers.log_likelihoods, answers.mask)
    finite = jnp.where(answers.mask, log_p, 0.0)
    terms = jnp.where(answers.mask, -jnp.exp(finite) * finite, 0.0)
    # `+ 0.0` turns the -0.0 of a certain answer into 0.
    entropy = jnp.sum(terms, axis=1, keepdims=True) + 0.0
    return jnp.broadcast_to(entropy, log_p.shape)


def perplexity(answers: Answers) -> Float[Array, "Q K"]:
    r"""Log of $e^{-\ell_k / L_k}$: the mean negative log-likelihood of a token.

    Direction: higher is more uncertain. Range: $[1, \infty)$. Unit: tokens (effective number
    of equally likely ones).
    """
    return -answers.log_likelihoods / jnp.maximum(answers.num_tokens, 1)


def mean_token_entropy(answers: Answers) -> Float[Array, "Q K"]:
    r"""Mean entropy of the next-token distributions along the answer.

    Direction: higher is more uncertain. Range: $[0, \log V]$. Unit: nats.
    """
    return answers.token_entropies


def exgrad(answers: Answers) -> Float[Array, "Q K"]:
    r"""Log of ExGrad $\sum_k \|\nabla p_k\| = \sum_k p_k \|\nabla\log p_k\|$ of the question.

    Direction: higher is more uncertain. Range: $[0, \infty)$. Unit: probability per unit
    weight standard deviation.
    """
    log_norms = 0.5 * of_choice(answers).log_epistemic
    total = masked_logsumexp(log_norms, answers.mask)[:, None]
    return jnp.broadcast_to(total, log_norms.shape)


def gradnorm(answers: Answers) -> Float[Array, "Q K"]:
    r"""Log of GradNorm $\|\nabla \mathrm{KL}(u \| p)\|$, u uniform over the K answers.

    The gradient is $\sum_k (p_k - 1/K) \nabla\ell_k$: zero where all answers are equally likely.
    The classes are the answers, the norm is Euclidean and over the same parameters as every other
    score (the authors take the vocabulary of a classifier, the last layer and the sum of absolute
    values).

    Direction: higher is more confident (in distribution). Range: $[0, \infty)$. Unit: nats per unit
    weight standard deviation.

    References:
      Huang, Geng and Li (2021), On the importance of gradients for detecting distributional shifts
      in the wild, arXiv 2110.00218.
    """
    p = jnp.exp(log_probabilities(answers.log_likelihoods, answers.mask))
    uniform = answers.mask / jnp.maximum(jnp.sum(answers.mask, axis=1, keepdims=True), 1)
    surplus = (p - uniform).astype(answers.gram.dtype)
    highest = jax.lax.Precision.HIGHEST
    squared = jnp.einsum("qi,qij,qj->q", surplus, answers.gram, surplus, precision=highest)
    # rounding can leave a tiny negative; NaN must stay visible
    log_norm = 0.5 * jnp.log(jnp.where(squared < 0.0, 0.0, squared))[:, None]
    return jnp.broadcast_to(log_norm, p.shape)


def fisher_trace(answers: Answers) -> Float[Array, "Q K"]:
    r"""Log of $\operatorname{tr} F = \sum_k \|\nabla p_k\|^2 / p_k$, exact Fisher of the choice.

    Direction: higher is more uncertain. Range: $[0, \infty)$. Unit: nats² per unit weight
    variance.
    """
    both = of_choice(answers)
    log_terms = both.log_epistemic - jnp.where(answers.mask, both.log_probability, 0.0)
    total = masked_logsumexp(log_terms, answers.mask)[:, None]
    return jnp.broadcast_to(total, log_terms.shape)


_UP, _DOWN = Direction.UNCERTAIN, Direction.CONFIDENT

BASELINE_SCORES: tuple[Score, ...] = (
    Score(
        "maximum_probability",
        maximum_probability, _DOWN, 0.0, 1.0, "probability", True, False, compares=True,
    ),
    Score("margin", margin, _DOWN, -1.0, 1.0, "probability", False, compares=True),
    Score(
        "choice_entropy", choice_entropy, _UP, 0.0, math.inf, "nats", False, False, compares=True,
    ),
    Score("perplexity", perplexity, _UP, 1.0, math.inf, "tokens", True),
    Score("mean_token_entropy", mean_token_entropy, _UP, 0.0, math.inf, "nats", False),
    Score("exgrad", exgrad, _UP, 0.0, math.inf, "probability/weight", True, False, compares=True),
    Score("gradnorm", gradnorm, _DOWN, 0.0, math.inf, "nats/weight", True, False, compares=True),
    Score(
        "fisher_trace",
        fisher_trace, _UP, 0.0, math.inf, "nats²/weight²", True, False, compares=True,
    ),
)  # fmt: skip
