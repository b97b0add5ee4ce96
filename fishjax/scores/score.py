"""One row of the registry of scores."""

import dataclasses
import enum
from collections.abc import Callable

from jaxtyping import Array, Float

from fishjax.scores.answers import Answers

__all__ = ["Direction", "Score"]


class Direction(enum.Enum):
    """What a higher value means; the value is the sign that turns a score into a confidence."""

    UNCERTAIN = -1
    CONFIDENT = 1


@dataclasses.dataclass(frozen=True)
class Score:
    """A score of every answer, and everything needed to use it without guessing.

    Attributes:
      name: key in rows and metrics.
      function: `Answers -> [Q, K]`; per-question quantities are repeated over K. A score of
        wide range returns its natural logarithm (`logarithmic`).
      direction: fixed in advance; an AUROC multiplies by its sign and is never flipped.
      low: the smallest value possible.
      high: the largest value possible, `inf` if there is none.
      unit: of the value itself, not of its logarithm.
      logarithmic: whether `function` returns the logarithm (a monotone map, so any ranking
        is the same).
      per_answer: False for a quantity of the whole question.
    """

    name: str
    function: Callable[[Answers], Float[Array, "Q K"]]
    direction: Direction
    low: float
    high: float
    unit: str
    logarithmic: bool
    per_answer: bool = True
