r"""Epistemic and aleatoric uncertainty of four probabilities of an answer.

With log-likelihoods $\ell_k$ and the Gram $C_{jk} = \langle\nabla\ell_j, \nabla\ell_k\rangle$ of
one question, everything follows from one fact: the gradient of the choice-normalised
probability $p_k$ is that of its log-odds, scaled,

$$\nabla p_k = p_k(1 - p_k)\,\nabla\operatorname{logit} p_k, \qquad
  \nabla\operatorname{logit} p_k = \nabla\ell_k - \sum_{j \ne k} q_j \nabla\ell_j, \qquad
  q_j = \frac{p_j}{1 - p_k}.$$

This equals $p_k^2 (C_{kk} - 2(Cp)_k + p^\top C p)$ and, unlike that form, does not cancel when
$p_k$ is close to 1. What remains is the rounding of $C$: the squared log-odds norm has an
absolute error of about $K \varepsilon \max_j C_{jj}$ ($\varepsilon$ = 1.2e-7 in float32), so a
difference of two nearly equal gradients can come out slightly negative; it is then set to 0.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from fishjax.scores.answers import Answers
from fishjax.scores.log_space import log1mexp, log_probabilities, masked_logsumexp

__all__ = [
    "Uncertainty",
    "log_odds_directions",
    "of_choice",
    "of_normalised_choice",
    "of_normalised_sequence",
    "of_sequence",
]


class Uncertainty(NamedTuple):
    r"""Logarithms, `[Q, K]` each; `-inf` is an exact zero. Undefined values are NaN.

    Attributes:
      log_probability: $\log p$, nats, at most 0.
      log_complement: $\log(1 - p)$, nats, at most 0.
      log_epistemic: $\log \|\nabla p\|^2$.
      log_scale_free: $\log \|\nabla \operatorname{logit} p\|^2$, which is
        $\log \|\nabla p\|^2 - 2 \log p(1 - p)$; NaN where $p$ is exactly 1.
    """

    log_probability: Float[Array, "Q K"]
    log_complement: Float[Array, "Q K"]
    log_epistemic: Float[Array, "Q K"]
    log_scale_free: Float[Array, "Q K"]

    @property
    def log_aleatoric(self) -> Float[Array, "Q K"]:
        r"""$\log p(1 - p)$, nats, at most $-\log 4$."""
        return self.log_probability + self.log_complement


def log_odds_directions(
    log_likelihoods: Float[Array, "Q K"], mask: Bool[Array, "Q K"]
) -> Float[Array, "Q K K"]:
    r"""Row k holds the coefficients $e_k - q$ of $\nabla\operatorname{logit} p_k$ over answers.

    Rows of answers that do not exist are zero. A question with a single answer has no odds;
    its row is $e_k$.
    """
    others = mask[:, None, :] & ~jnp.eye(mask.shape[1], dtype=bool)
    logits = jnp.broadcast_to(log_likelihoods[:, None, :], others.shape)
    total = masked_logsumexp(logits, others)[..., None]
    shares = jnp.where(others, jnp.exp(logits - jnp.where(jnp.isneginf(total), 0.0, total)), 0.0)
    return jnp.where(mask[:, :, None], jnp.eye(mask.shape[1]) - shares, 0.0)


def of_choice(answers: Answers) -> Uncertainty:
    r"""Of the choice-normalised probability $p_k = e^{\ell_k} / \sum_j e^{\ell_j}$.

    With a single answer $p = 1$ is constant: epistemic and aleatoric are exactly 0.
    """
    return _of_softmax(answers.log_likelihoods, answers.gram, answers.mask)


def of_normalised_choice(answers: Answers) -> Uncertainty:
    r"""Of the softmax over $\ell_k / L_k$, $L$ the number of tokens (Gram $C_{jk}/(L_j L_k)$)."""
    lengths = _lengths(answers)
    gram = answers.gram / (lengths[:, :, None] * lengths[:, None, :])
    return _of_softmax(answers.log_likelihoods / lengths, gram, answers.mask)


def of_sequence(answers: Answers) -> Uncertainty:
    r"""Of the raw sequence probability $p = e^{\ell}$, where $\nabla p = p \nabla\ell$."""
    return _of_exponential(answers.log_likelihoods, answers.gram, answers.mask)


def of_normalised_sequence(answers: Answers) -> Uncertainty:
    r"""Of the geometric mean per token $\tilde p = e^{\ell/L}$.

    Its gradient is $(\tilde p / L) \nabla\ell$.
    """
    lengths = _lengths(answers)
    gram = answers.gram / (lengths[:, :, None] * lengths[:, None, :])
    return _of_exponential(answers.log_likelihoods / lengths, gram, answers.mask)


def _lengths(answers: Answers) -> Array:
    # Answers that do not exist have length 0; any positive stand-in keeps them finite.
    return jnp.maximum(answers.num_tokens, 1).astype(answers.log_likelihoods.dtype)


def _of_softmax(log_likelihoods: Array, gram: Array, mask: Array) -> Uncertainty:
    log_p = log_probabilities(log_likelihoods, mask)
    others = mask[:, None, :] & ~jnp.eye(mask.shape[1], dtype=bool)
    log_p_others = jnp.broadcast_to(log_p[:, None, :], others.shape)
    log_complement = masked_logsumexp(log_p_others, others)
    directions = log_odds_directions(log_likelihoods, mask).astype(gram.dtype)
    highest = jax.lax.Precision.HIGHEST
    squared = jnp.einsum("qki,qij,qkj->qk", directions, gram, directions, precision=highest)
    log_scale_free = jnp.log(jnp.where(squared < 0.0, 0.0, squared))
    alone = jnp.isneginf(log_complement)
    return Uncertainty(
        log_probability=log_p,
        log_complement=log_complement,
        log_epistemic=jnp.where(alone, -jnp.inf, 2 * (log_p + log_complement) + log_scale_free),
        log_scale_free=jnp.where(alone, jnp.nan, log_scale_free),
    )


def _of_exponential(log_p: Array, gram: Array, mask: Array) -> Uncertainty:
    log_p = jnp.where(mask, log_p, -jnp.inf)
    log_complement = log1mexp(log_p)
    log_squared = jnp.log(jnp.diagonal(gram, axis1=1, axis2=2))
    certain = jnp.isneginf(log_complement)
    return Uncertainty(
        log_probability=log_p,
        log_complement=log_complement,
        log_epistemic=2 * log_p + log_squared,
        log_scale_free=jnp.where(certain, jnp.nan, log_squared - 2 * log_complement),
    )
