"""Uncertainty scores: pure functions of what a model gave, each with direction, range and unit.

Of multiple-choice answers (`SCORES`: log-likelihoods and a Gram matrix), of tokens
(`TOKEN_SCORES`), of generated answers (`GENERATION_SCORES`: one question's greedy answer and
samples) and of the model's own judgement (`ASKED_SCORES`). Each registry has name, function,
direction, range and unit. A score's AUROC uses the chosen answer's value with the sign of its
direction, fixed here in advance.
"""

from fishjax.scores.answers import Answers, Choice, choose, take_chosen
from fishjax.scores.asked import (
    ASKED_SCORES,
    P_TRUE_OPTIONS,
    p_true,
    p_true_prompt,
    verbalised_prompt,
)
from fishjax.scores.attribution import parameter_shares
from fishjax.scores.generations import Generations
from fishjax.scores.lexical import lexical_similarity, rouge_l
from fishjax.scores.log_space import log1mexp, log_probabilities, masked_logsumexp
from fishjax.scores.meanings import Meanings, both_ways, judge, same_text
from fishjax.scores.registry import (
    COMPARING,
    DIRECTIONS,
    GENERATION_SCORES,
    LOGARITHMIC,
    SCORES,
    evaluate_generations,
    evaluate_scores,
)
from fishjax.scores.score import Direction, PlainScore, Score
from fishjax.scores.semantic import (
    discrete_semantic_entropy,
    number_of_semantic_sets,
    self_consistency,
    semantic_entropy,
    unnormalised_semantic_entropy,
)
from fishjax.scores.sequence_likelihood import (
    answer_length,
    greedy_log_likelihood,
    greedy_perplexity,
    normalised_predictive_entropy,
    predictive_entropy,
)
from fishjax.scores.stated_confidence import CONFIDENCE_WORDS, parse_confidence
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
    "ASKED_SCORES",
    "COMPARING",
    "CONFIDENCE_WORDS",
    "DIRECTIONS",
    "GENERATION_SCORES",
    "LOGARITHMIC",
    "P_TRUE_OPTIONS",
    "SCORES",
    "TOKEN_SCORES",
    "Answers",
    "Choice",
    "Direction",
    "Generations",
    "Meanings",
    "PlainScore",
    "Score",
    "TokenScore",
    "Uncertainty",
    "answer_length",
    "both_ways",
    "choose",
    "discrete_semantic_entropy",
    "evaluate_generations",
    "evaluate_scores",
    "greedy_log_likelihood",
    "greedy_perplexity",
    "judge",
    "lexical_similarity",
    "log1mexp",
    "log_odds_directions",
    "log_probabilities",
    "masked_logsumexp",
    "normalised_predictive_entropy",
    "number_of_semantic_sets",
    "of_choice",
    "of_normalised_choice",
    "of_normalised_sequence",
    "of_sequence",
    "p_true",
    "p_true_prompt",
    "parameter_shares",
    "parse_confidence",
    "predictive_entropy",
    "rouge_l",
    "same_text",
    "self_consistency",
    "semantic_entropy",
    "take_chosen",
    "unnormalised_semantic_entropy",
    "verbalised_prompt",
]
