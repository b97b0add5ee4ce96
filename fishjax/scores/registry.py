"""Every score, by name. A new score is one function and one row beside it."""

from collections.abc import Mapping
from types import MappingProxyType

from jaxtyping import Array, Float

from fishjax.scores.answers import Answers
from fishjax.scores.baselines import BASELINE_SCORES
from fishjax.scores.gradient_norms import GRADIENT_SCORES
from fishjax.scores.score import Direction, Score
from fishjax.scores.tokens import TOKEN_SCORES

__all__ = ["DIRECTIONS", "LOGARITHMIC", "SCORES", "evaluate_scores"]

SCORES: tuple[Score, ...] = GRADIENT_SCORES + BASELINE_SCORES

DIRECTIONS: Mapping[str, Direction] = MappingProxyType(
    {score.name: score.direction for score in (*SCORES, *TOKEN_SCORES)}
)
"""Name to direction, per-token scores included."""

LOGARITHMIC: frozenset[str] = frozenset(
    [score.name for score in SCORES if score.logarithmic] + [score.name for score in TOKEN_SCORES]
)
"""Names of the scores whose functions return natural logarithms."""


def evaluate_scores(answers: Answers) -> dict[str, Float[Array, "Q K"]]:
    """Every score of every answer, by name. Values where the mask is False mean nothing."""
    return {score.name: score.function(answers) for score in SCORES}
