"""Measures of predictions and scores: arrays in, numbers out.

A measure that is undefined for its input (one class only, no example) is `None`, never NaN.
"""

from fishjax.metrics.calibration import (
    accuracy,
    brier_score,
    expected_calibration_error,
    negative_log_likelihood,
)
from fishjax.metrics.combination import (
    Coefficient,
    Combination,
    combine_scores,
    grouped_folds,
)
from fishjax.metrics.logistic import Logistic, cross_validated_logits, fit_logistic
from fishjax.metrics.ranks import average_ranks, partial_spearman, spearman
from fishjax.metrics.roc import (
    Interval,
    auroc,
    auroc_intervals,
    auroc_samples,
    percentile_interval,
)
from fishjax.metrics.selective import aurc, prediction_rejection_ratio

__all__ = [
    "Coefficient",
    "Combination",
    "Interval",
    "Logistic",
    "accuracy",
    "aurc",
    "auroc",
    "auroc_intervals",
    "auroc_samples",
    "average_ranks",
    "brier_score",
    "combine_scores",
    "cross_validated_logits",
    "expected_calibration_error",
    "fit_logistic",
    "grouped_folds",
    "negative_log_likelihood",
    "partial_spearman",
    "percentile_interval",
    "prediction_rejection_ratio",
    "spearman",
]
