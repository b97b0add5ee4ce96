"""What the gradient functions return."""

from typing import NamedTuple

from jaxtyping import Array, Float

__all__ = ["Gram", "SquaredNorms"]


class SquaredNorms(NamedTuple):
    """Squared per-example gradient norms.

    Attributes:
      total: `[N]`, the sum over all parameters.
      by_parameter: path to `[N]`, or `[L, N]` for weights stacked by a `scan` over L layers.
    """

    total: Float[Array, " N"]
    by_parameter: dict[str, Float[Array, "..."]]


class Gram(NamedTuple):
    """Inner products of the gradients of the K answers of each of Q questions.

    Attributes:
      total: `[Q, K, K]`, the sum over all parameters.
      by_parameter: path to `[Q, K, K]`, or `[L, Q, K, K]` for scanned layers.
    """

    total: Float[Array, "Q K K"]
    by_parameter: dict[str, Float[Array, "..."]]
