"""From the columns of a run to its metrics; pure."""

from typing import Any

import numpy as np

from fishjax import metrics
from fishjax.cli.columns import Columns
from fishjax.scores import ASKED_SCORES, DIRECTIONS, Direction

__all__ = [
    "LOG_FLOOR",
    "NUM_BINS",
    "NUM_FOLDS",
    "NUM_REPEATS",
    "NUM_RESAMPLES",
    "SUPERVISED",
    "measure",
    "score_areas",
]

NUM_RESAMPLES, LEVEL, NUM_BINS, NUM_FOLDS, NUM_REPEATS = 1000, 0.95, 15, 5, 10
SUPERVISED = "supervised_epistemic_aleatoric"
# Logistic regression needs finite features: an exact zero counts as e^-200.
LOG_FLOOR = -200.0
_WORDS = {Direction.UNCERTAIN: "more uncertain", Direction.CONFIDENT: "more confident"}


def measure(columns: Columns, *, seed: int) -> dict[str, Any]:
    """Accuracies, calibration and the AUROC of every score, all predicting `correct`.

    Args:
      columns: of a finished run. Questions with values that are not finite are counted and
        left out of everything else.
      seed: of bootstrap and folds.

    Returns:
      Plain JSON values; `None` where a measure is undefined. Those that compare the answers of a
      question are where no question has two: the one answer's probability among them is 1.
    """
    correct = columns.correct
    alone = not columns.compares
    return {
        "num_questions": columns.num_questions,
        "num_scored": int(correct.size),
        "num_non_finite": columns.num_questions - int(correct.size),
        "num_truncated": columns.num_truncated,
        "num_ties": int(columns.tied.sum()),
        "class_balance": {"correct": int(correct.sum()), "incorrect": int((~correct).sum())},
        "accuracy": metrics.accuracy(correct),
        "acc_norm": None if alone else metrics.accuracy(columns.correct_norm),
        "acc_bytes": None if alone else metrics.accuracy(columns.correct_bytes),
        "mc2": None if alone else float(columns.mc2.mean()),
        "calibration": _calibration(columns),
        "scores": _scores(columns, seed),
        "bootstrap": {"resamples": NUM_RESAMPLES, "level": LEVEL, "stratified": True},
    }


def _calibration(columns: Columns) -> dict[str, Any]:
    """Of the choice probabilities, and of what the model says when asked, where it was.

    Brier only where exactly one answer is true everywhere.
    """
    found: dict[str, Any] = {"ece": None, "ece_bins": NUM_BINS, "brier": None, "nll": None}
    if columns.compares:
        answerable = columns.true_log_probability[np.isfinite(columns.true_log_probability)]
        found["ece"] = _ece(columns.confidence, columns.correct)
        found["nll"] = metrics.negative_log_likelihood(answerable)
        if (columns.labels.sum(axis=1) == 1).all():
            found["brier"] = metrics.brier_score(columns.probabilities, columns.labels)
    for name in (score.name for score in ASKED_SCORES if score.name in columns.scores):
        defined = ~np.isnan(columns.scores[name])
        stated, correct = columns.scores[name][defined], columns.correct[defined]
        found[name] = {"ece": _ece(stated, correct), "ece_bins": NUM_BINS, "n": int(defined.sum())}
    return found


def _ece(confidence: np.ndarray, correct: np.ndarray) -> float | None:
    return metrics.expected_calibration_error(confidence, correct, num_bins=NUM_BINS)


def score_areas(columns: Columns, *, seed: int, fewest: int = 1) -> dict[str, dict[str, Any]]:
    """AUROC of every score with its interval.

    Args:
      columns: of some questions.
      seed: of the bootstrap.
      fewest: answers of each class below which there is no interval.

    Returns:
      By name `auroc`, `interval` and `n`, the questions that have the score.
    """
    return _areas(_confidences(columns), columns.correct, seed, fewest)


def _confidences(columns: Columns) -> dict[str, np.ndarray]:
    return {name: DIRECTIONS[name].value * values for name, values in columns.scores.items()}


def _areas(
    confidences: dict[str, np.ndarray], correct: np.ndarray, seed: int, fewest: int = 1
) -> dict[str, dict[str, Any]]:
    intervals = _intervals(confidences, correct, seed)
    areas = {}
    for name, confidence in confidences.items():
        defined = ~np.isnan(confidence)
        right = correct[defined]
        interval = intervals[name]
        if min(right.sum(), (~right).sum()) < fewest:
            interval = None
        areas[name] = {
            "auroc": metrics.auroc(confidence[defined], right),
            "interval": None if interval is None else list(interval),
            "n": int(defined.sum()),
        }
    return areas


def _scores(columns: Columns, seed: int) -> dict[str, dict[str, Any]]:
    confidences = _confidences(columns)
    directions = {name: _WORDS[DIRECTIONS[name]] for name in confidences}
    supervised = _supervised(columns, seed)
    if supervised is not None:
        confidences[SUPERVISED] = supervised
        directions[SUPERVISED] = "more confident"
    entries = _areas(confidences, columns.correct, seed)
    for name, confidence in confidences.items():
        defined = ~np.isnan(confidence)
        confident, correct = confidence[defined], columns.correct[defined]
        entries[name] |= {
            "aurc": metrics.aurc(confident, correct),
            "prr": metrics.prediction_rejection_ratio(confident, correct),
            "direction": directions[name],
            "supervised": name == SUPERVISED,
        }
    return entries


def _intervals(
    confidences: dict[str, np.ndarray], correct: np.ndarray, seed: int
) -> dict[str, metrics.Interval | None]:
    """Scores that are defined for the same questions share their resamples."""
    groups: dict[bytes, list[str]] = {}
    for name, confidence in confidences.items():
        groups.setdefault(np.isnan(confidence).tobytes(), []).append(name)
    found: dict[str, metrics.Interval | None] = {}
    for names in groups.values():
        defined = ~np.isnan(confidences[names[0]])
        intervals = metrics.auroc_intervals(
            np.stack([confidences[name][defined] for name in names]),
            correct[defined],
            rng=np.random.default_rng(seed),
            num_resamples=NUM_RESAMPLES,
            level=LEVEL,
        )
        found |= dict(zip(names, intervals or [None] * len(names), strict=True))
    return found


def _supervised(columns: Columns, seed: int) -> np.ndarray | None:
    """Out-of-fold logits of a logistic regression on log epistemic and log aleatoric."""
    if columns.correct.size == 0:
        return None
    features = np.stack([columns.scores[name] for name in columns.pair], axis=1)
    return metrics.cross_validated_logits(
        np.maximum(features, LOG_FLOOR),
        columns.correct,
        rng=np.random.default_rng(seed),
        num_folds=NUM_FOLDS,
    )
