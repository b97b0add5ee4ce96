"""Uncertainty scores of multiple-choice answers: pure functions of log-likelihoods and a Gram.

`SCORES` is the registry: name, function, direction, range and unit of each. A score's AUROC
uses the chosen answer's value with the sign of its direction, fixed here in advance.
"""

from fishjax.scores.answers import Answers, Choice, choose, take_chosen
from fishjax.scores.attribution import parameter_shares
from fishjax.scores.log_space import log1mexp, log_probabilities, masked_logsumexp
from fishjax.scores.registry import DIRECTIONS, LOGARITHMIC, SCORES, evaluate_scores
from fishjax.scores.score import Direction, Score
from fishjax.scores.tokens import TOKEN_SCORES, TokenScore
from fishjax.scores.uncertainty import (
    Uncertainty,
    log_odds_directions,
    of_choice,
    of_normalised_choice,
    of_normalised_sequence,
    of_sequence,
)

__all__ = [
    "DIRECTIONS",
    "LOGARITHMIC",
    "SCORES",
    "TOKEN_SCORES",
    "Answers",
    "Choice",
    "Direction",
    "Score",
    "TokenScore",
    "Uncertainty",
    "choose",
    "evaluate_scores",
    "log1mexp",
    "log_odds_directions",
    "log_probabilities",
    "masked_logsumexp",
    "of_choice",
    "of_normalised_choice",
    "of_normalised_sequence",
    "of_sequence",
    "parameter_shares",
    "take_chosen",
]
