"""One row of the registry of scores."""

import dataclasses
import enum
from collections.abc import Callable
from typing import Any

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
      compares: whether it weighs a question's answers against each other, so that it is constant
        or undefined where there is one answer only.
    """

    name: str
    function: Callable[[Answers], Float[Array, "Q K"]]
    direction: Direction
    low: float
    high: float
    unit: str
    logarithmic: bool
    per_answer: bool = True
    compares: bool = False


@dataclasses.dataclass(frozen=True)
class PlainScore:
    """Like `Score`, but of plain Python values: one number a question.

    Attributes:
      name: key in rows and metrics.
      function: its arguments are those of its family, named where the rows are. Returns the number
        itself, never its logarithm; NaN or `None` where undefined.
      direction: fixed in advance, as in `Score`.
      low: the smallest value possible.
      high: the largest value possible.
      unit: of the value.
    """

    name: str
    function: Callable[..., Any]
    direction: Direction
    low: float
    high: float
    unit: str
