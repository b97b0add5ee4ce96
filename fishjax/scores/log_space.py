"""Sums, complements and soft-maxima of probabilities kept as logarithms."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

__all__ = ["log1mexp", "log_probabilities", "masked_logsumexp"]


def log1mexp(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    r"""$\log(1 - e^x)$ for $x \le 0$, accurate at both ends; `-inf` at 0 and NaN above.

    References:
      Mächler (2012), Accurately computing log(1 - exp(-|a|)).
    """
    near = x > -jnp.log(2.0)
    # Each branch sees a harmless value where the other one is used.
    small = jnp.log(-jnp.expm1(jnp.where(near, x, -1.0)))
    large = jnp.log1p(-jnp.exp(jnp.where(near, -1.0, x)))
    return jnp.where(near, small, large)


def masked_logsumexp(
    values: Float[Array, "*rows K"], mask: Bool[Array, "*rows K"]
) -> Float[Array, "*rows"]:
    """`log Σ exp` of the entries where the mask holds; `-inf` where none does."""
    kept = jnp.where(mask, values, -jnp.inf)
    highest = jnp.max(kept, axis=-1, keepdims=True)
    # Only -inf needs a stand-in (nothing kept); +inf and NaN must stay visible.
    shift = jnp.where(jnp.isneginf(highest), 0.0, highest)
    return jnp.log(jnp.sum(jnp.exp(kept - shift), axis=-1)) + shift[..., 0]


def log_probabilities(
    log_likelihoods: Float[Array, "Q K"], mask: Bool[Array, "Q K"]
) -> Float[Array, "Q K"]:
    r"""Choice-normalised log-probabilities: log-softmax over each question's valid answers.

    Written as $-\log(1 + e^{-\mathrm{logit}})$ with each answer's log-odds against the others, so
    that $\log p = -10^{-20}$ of a nearly certain answer is not rounded to 0, and certain answers
    are not tied.

    Args:
      log_likelihoods: nats, one per answer.
      mask: which answers exist.

    Returns:
      Nats, at most 0; `-inf` at answers that do not exist.
    """
    others = mask[:, None, :] & ~jnp.eye(mask.shape[1], dtype=bool)
    rivals = masked_logsumexp(jnp.broadcast_to(log_likelihoods[:, None, :], others.shape), others)
    # 0 - x, not -x: a single answer has log p = 0, not -0.
    return jnp.where(mask, 0.0 - jnp.logaddexp(rivals - log_likelihoods, 0.0), -jnp.inf)
