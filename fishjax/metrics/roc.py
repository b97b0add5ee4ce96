"""Area under the ROC curve with a bootstrap interval."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from fishjax.metrics.ranks import average_ranks

__all__ = ["Interval", "auroc", "auroc_intervals", "auroc_samples", "percentile_interval"]

# Resampling weights held at once: 8 M float64 values are 64 MB.
_CHUNK_ELEMENTS = 8_000_000


class Interval(NamedTuple):
    """Lower and upper end of a two-sided interval."""

    low: float
    high: float


def auroc(confidence: Float[np.ndarray, " N"], positive: Bool[np.ndarray, " N"]) -> float | None:
    r"""Probability that a positive has a higher confidence than a negative; ties count one half.

    The Mann–Whitney form $(R_+ - n_+(n_+ + 1)/2) / (n_+ n_-)$ with average ranks. The sign is
    the caller's: the result may be below 0.5 and is never flipped.

    Args:
      confidence: higher should mean "positive"; infinities are allowed, NaN is not.
      positive: the labels.

    Returns:
      A value in [0, 1], or `None` when only one class is present.
    """
    num_positive = int(positive.sum())
    num_negative = positive.size - num_positive
    if num_positive == 0 or num_negative == 0:
        return None
    rank_sum = float(average_ranks(confidence)[positive].sum())
    return (rank_sum - num_positive * (num_positive + 1) / 2) / (num_positive * num_negative)


def auroc_intervals(
    confidences: Float[np.ndarray, "S N"],
    positive: Bool[np.ndarray, " N"],
    *,
    rng: np.random.Generator,
    num_resamples: int = 1000,
    level: float = 0.95,
) -> list[Interval] | None:
    """Percentile bootstrap intervals of S scores' AUROC on the same N examples.

    **Stratified**: positives and negatives are each resampled with replacement, so every resample
    has the observed class balance and none is undefined. All scores see the same resamples.

    Args:
      confidences: one score a row, higher meaning "positive".
      positive: the labels.
      rng: source of the resamples.
      num_resamples: how many resamples.
      level: coverage, between 0 and 1.

    Returns:
      One interval a score; `None` when only one class is present.
    """
    _check_level(level)
    samples = auroc_samples(confidences, positive, rng=rng, num_resamples=num_resamples)
    return None if samples is None else [percentile_interval(row, level) for row in samples]


def percentile_interval(samples: Float[np.ndarray, " B"], level: float = 0.95) -> Interval:
    """Between the quantiles that leave out as much on either side.

    Raises:
      ValueError: the level is not between 0 and 1.
    """
    _check_level(level)
    tail = (1.0 - level) / 2.0
    low, high = np.quantile(samples, [tail, 1.0 - tail])
    return Interval(float(low), float(high))


def auroc_samples(
    confidences: Float[np.ndarray, "S N"],
    positive: Bool[np.ndarray, " N"],
    *,
    rng: np.random.Generator,
    num_resamples: int = 1000,
) -> Float[np.ndarray, "S B"] | None:
    """AUROC of every score in every resample of `auroc_intervals`; `None` with one class only."""
    if num_resamples < 1:
        raise ValueError(f"num_resamples={num_resamples}: expected at least 1")
    if positive.all() or not positive.any():
        return None
    samples = np.empty((len(confidences), num_resamples))
    streams = rng.spawn(2)  # one a class: cutting the resamples into chunks changes no draw
    chunk = max(1, _CHUNK_ELEMENTS // positive.size)
    for start in range(0, num_resamples, chunk):
        size = min(chunk, num_resamples - start)
        weights = _stratified_weights(positive, size, streams)
        for row, confidence in enumerate(confidences):
            samples[row, start : start + size] = _weighted_auroc(confidence, positive, weights)
    return samples


def _check_level(level: float) -> None:
    if not 0.0 < level < 1.0:
        raise ValueError(f"level={level}: expected 0 < level < 1")


def _stratified_weights(
    positive: np.ndarray, num_resamples: int, streams: list[np.random.Generator]
) -> np.ndarray:
    """How often each example occurs in each resample, `[B, N]`."""
    weights = np.zeros((num_resamples, positive.size))
    classes = (np.flatnonzero(positive), np.flatnonzero(~positive))
    for members, rng in zip(classes, streams, strict=True):
        draws = rng.integers(0, members.size, size=(num_resamples, members.size))
        draws += np.arange(num_resamples)[:, None] * members.size
        counts = np.bincount(draws.reshape(-1), minlength=num_resamples * members.size)
        weights[:, members] = counts.reshape(num_resamples, members.size)
    return weights


def _weighted_auroc(
    confidence: np.ndarray, positive: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """AUROC of every resample `[B]`, with ties averaged, from one sort of the scores."""
    order = np.argsort(confidence, kind="stable")
    ordered = confidence[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    above = np.add.reduceat(weights[:, order] * positive[order], starts, axis=1)
    below = np.add.reduceat(weights[:, order] * ~positive[order], starts, axis=1)
    wins = np.cumsum(below, axis=1) - 0.5 * below  # negatives below, half of those tied
    return (above * wins).sum(axis=1) / (above.sum(axis=1) * below.sum(axis=1))
