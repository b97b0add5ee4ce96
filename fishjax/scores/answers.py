"""What every score of a question's answers is computed from."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

__all__ = ["Answers", "Choice", "choose", "take_chosen"]


class Answers(NamedTuple):
    """Q questions with up to K answers each.

    Attributes:
      log_likelihoods: `[Q, K]` nats, summed over the tokens of the answer.
      gram: `[Q, K, K]` inner products of the gradients of `log_likelihoods`.
      mask: `[Q, K]`, which answers exist. Values elsewhere are ignored.
      num_tokens: `[Q, K]` tokens of each answer, at least 1 where it exists.
      token_entropies: `[Q, K]` nats, the mean over an answer's tokens of the entropy of the
        model's next-token distribution.
    """

    log_likelihoods: Float[Array, "Q K"]
    gram: Float[Array, "Q K K"]
    mask: Bool[Array, "Q K"]
    num_tokens: Int[Array, "Q K"]
    token_entropies: Float[Array, "Q K"]


class Choice(NamedTuple):
    """The model's answer to each question.

    Attributes:
      index: `[Q]` the answer with the highest log-likelihood, the lowest index among equals.
      tied: `[Q]` whether another answer has exactly the same log-likelihood.
    """

    index: Int[Array, " Q"]
    tied: Bool[Array, " Q"]


def choose(log_likelihoods: Float[Array, "Q K"], mask: Bool[Array, "Q K"]) -> Choice:
    """The answer with the highest log-likelihood; ties go to the lowest index."""
    kept = jnp.where(mask, log_likelihoods, -jnp.inf)
    highest = jnp.max(kept, axis=1, keepdims=True)
    return Choice(jnp.argmax(kept, axis=1), jnp.sum((kept == highest) & mask, axis=1) > 1)


def take_chosen(values: Float[Array, "Q K"], index: Int[Array, " Q"]) -> Float[Array, " Q"]:
    """The chosen answer's value of each question."""
    return jnp.take_along_axis(values, index[:, None], axis=1)[:, 0]
