"""Every score, by name. A new score is one function and one row beside it."""

from collections.abc import Mapping
from types import MappingProxyType

from jaxtyping import Array, Float

from fishjax.scores.answers import Answers
from fishjax.scores.asked import ASKED_SCORES
from fishjax.scores.baselines import BASELINE_SCORES
from fishjax.scores.generations import Generations
from fishjax.scores.gradient_norms import GRADIENT_SCORES
from fishjax.scores.lexical import LEXICAL_SCORES
from fishjax.scores.score import Direction, PlainScore, Score
from fishjax.scores.semantic import SEMANTIC_SCORES
from fishjax.scores.sequence_likelihood import SEQUENCE_SCORES
from fishjax.scores.tokens import TOKEN_SCORES

__all__ = [
    "COMPARING",
    "DIRECTIONS",
    "GENERATION_SCORES",
    "LOGARITHMIC",
    "SCORES",
    "evaluate_generations",
    "evaluate_scores",
]

SCORES: tuple[Score, ...] = GRADIENT_SCORES + BASELINE_SCORES

GENERATION_SCORES: tuple[PlainScore, ...] = SEMANTIC_SCORES + LEXICAL_SCORES + SEQUENCE_SCORES
"""`Generations -> float` each, NaN where undefined."""

DIRECTIONS: Mapping[str, Direction] = MappingProxyType(
    {
        score.name: score.direction
        for score in (*SCORES, *TOKEN_SCORES, *GENERATION_SCORES, *ASKED_SCORES)
    }
)
"""Name to direction, of every family of scores."""

LOGARITHMIC: frozenset[str] = frozenset(
    [score.name for score in SCORES if score.logarithmic] + [score.name for score in TOKEN_SCORES]
)
"""Names of the scores whose functions return natural logarithms."""

COMPARING: frozenset[str] = frozenset(score.name for score in SCORES if score.compares)
"""Names of the scores that say nothing of a question with one answer, such as a generated one."""


def evaluate_scores(answers: Answers) -> dict[str, Float[Array, "Q K"]]:
    """Every score of every answer, by name. Values where the mask is False mean nothing."""
    return {score.name: score.function(answers) for score in SCORES}


def evaluate_generations(generations: Generations) -> dict[str, float]:
    """Every score of one question's generations, by name; NaN where undefined (too few samples)."""
    return {score.name: score.function(generations) for score in GENERATION_SCORES}
