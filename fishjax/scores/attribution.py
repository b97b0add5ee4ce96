"""Where in the network the epistemic part of an answer sits."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from fishjax.scores.uncertainty import log_odds_directions

__all__ = ["parameter_shares"]


def parameter_shares(
    log_likelihoods: Float[Array, "Q K"],
    by_parameter: dict[str, Float[Array, "..."]],
    mask: Bool[Array, "Q K"],
    index: Int[Array, " Q"],
) -> dict[str, Float[Array, "..."]]:
    r"""Each parameter's share of $\|\nabla p_k\|^2$ of one answer a question.

    A squared norm is a sum over parameters, so the shares of a question sum to 1. The factor
    $(p_k(1-p_k))^2$ is common to all parameters and drops out, so nothing underflows. The
    choice-normalised probability of a single answer is constant: there the shares are those of
    its sequence probability, $\|\nabla e^{\ell}\|^2$.

    Args:
      log_likelihoods: nats.
      by_parameter: path to the Gram of that parameter, `[Q, K, K]` or `[L, Q, K, K]`.
      mask: which answers exist.
      index: which answer of each question.

    Returns:
      Path to `[Q]`, or `[Q, L]` for scanned layers; each in [0, 1]. NaN where the whole
      gradient is zero (exactly equal gradients).
    """
    directions = log_odds_directions(log_likelihoods, mask)
    direction = jnp.take_along_axis(directions, index[:, None, None], axis=1)[:, 0]
    highest = jax.lax.Precision.HIGHEST
    parts = {}
    for path, gram in by_parameter.items():
        part = jnp.einsum("...qij,qi,qj->q...", gram, direction, direction, precision=highest)
        # Cancellation can leave a tiny negative; NaN must stay visible.
        parts[path] = jnp.where(part < 0.0, 0.0, part)
    total = sum(
        (part.reshape(part.shape[0], -1).sum(axis=1) for part in parts.values()),
        jnp.zeros_like(log_likelihoods[:, 0]),
    )
    total = jnp.where(total == 0.0, jnp.nan, total)
    return {path: part / total.reshape(-1, *[1] * (part.ndim - 1)) for path, part in parts.items()}
