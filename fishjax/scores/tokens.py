r"""Scores of a sequence from the gradients of its tokens, one gradient each.

They do not follow from the Gram of whole answers: $\|\nabla p_t\|^2 = p_t^2\|\nabla\log p_t\|^2$
needs the gradient of every token of its own.
"""

import dataclasses
import math
from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from fishjax.scores.log_space import masked_logsumexp
from fishjax.scores.score import Direction

__all__ = ["TOKEN_SCORES", "TokenScore", "token_epistemic_max", "token_epistemic_mean"]


@dataclasses.dataclass(frozen=True)
class TokenScore:
    """Like `Score`, but of one sequence's tokens; always a natural logarithm.

    Attributes:
      name: key in rows and metrics.
      function: `(log_probabilities [N, A], squared_norms [N, A], mask [N, A]) -> [N]`.
      direction: fixed in advance, as in `Score`.
      low: the smallest value possible.
      high: the largest value possible.
      unit: of the value itself.
    """

    name: str
    function: Callable[
        [Float[Array, "N A"], Float[Array, "N A"], Bool[Array, "N A"]], Float[Array, " N"]
    ]
    direction: Direction
    low: float
    high: float
    unit: str


def token_epistemic_mean(
    log_probabilities: Float[Array, "N A"],
    squared_norms: Float[Array, "N A"],
    mask: Bool[Array, "N A"],
) -> Float[Array, " N"]:
    r"""Log of the mean over tokens of $\|\nabla p_t\|^2$.

    Direction: higher is more uncertain. Range: $[0, \infty)$. Unit: probability² per unit
    weight variance.

    Args:
      log_probabilities: $\log p(v_t | v_{<t})$ of every token.
      squared_norms: $\|\nabla\log p(v_t | v_{<t})\|^2$ of every token.
      mask: which tokens exist.
    """
    total = masked_logsumexp(2 * log_probabilities + jnp.log(squared_norms), mask)
    return total - jnp.log(jnp.maximum(jnp.sum(mask, axis=1), 1))


def token_epistemic_max(
    log_probabilities: Float[Array, "N A"],
    squared_norms: Float[Array, "N A"],
    mask: Bool[Array, "N A"],
) -> Float[Array, " N"]:
    r"""Log of the maximum over tokens of $\|\nabla p_t\|^2$.

    Direction, range, unit and arguments as `token_epistemic_mean`.
    """
    values = 2 * log_probabilities + jnp.log(squared_norms)
    return jnp.max(jnp.where(mask, values, -jnp.inf), axis=1)


_P2 = "probability²/weight²"

TOKEN_SCORES: tuple[TokenScore, ...] = (
    TokenScore(
        "token_epistemic_mean", token_epistemic_mean, Direction.UNCERTAIN, 0.0, math.inf, _P2
    ),
    TokenScore("token_epistemic_max", token_epistemic_max, Direction.UNCERTAIN, 0.0, math.inf, _P2),
)
