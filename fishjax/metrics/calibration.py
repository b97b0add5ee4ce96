"""How far stated probabilities are from what happens: accuracy, ECE, Brier, NLL."""

import numpy as np
from jaxtyping import Bool, Float

__all__ = ["accuracy", "brier_score", "expected_calibration_error", "negative_log_likelihood"]


def accuracy(correct: Bool[np.ndarray, " N"]) -> float | None:
    """Share of correct examples, in [0, 1]; `None` for no example."""
    return float(correct.mean()) if correct.size else None


def expected_calibration_error(
    confidence: Float[np.ndarray, " N"], correct: Bool[np.ndarray, " N"], *, num_bins: int = 15
) -> float | None:
    r"""$\sum_b \frac{n_b}{N} |\mathrm{acc}_b - \mathrm{conf}_b|$ over equal-width bins `(lo, hi]`.

    Confidence 0 falls in the first bin and 1 in the last. Lower is better, range [0, 1].
    Report the number of bins beside it.

    Args:
      confidence: probability of the predicted class; only a probability has an ECE.
      correct: whether the prediction was right.
      num_bins: number of equal-width bins.

    Returns:
      The error, or `None` for no example.

    Raises:
      ValueError: a confidence is outside [0, 1] or NaN, or there is no bin.

    References:
      Guo et al. (2017), On calibration of modern neural networks.
    """
    if num_bins < 1:
        raise ValueError(f"num_bins={num_bins}: expected at least one bin")
    if not np.all((confidence >= 0) & (confidence <= 1)):
        raise ValueError("a confidence is outside [0, 1]: ECE is only defined for probabilities")
    if confidence.size == 0:
        return None
    edges = np.arange(1, num_bins) / num_bins
    # side="left" counts the edges below the value, so a value on an edge stays in (lo, hi].
    bins = np.searchsorted(edges, confidence.astype(np.float64), side="left")
    confidence_sums = np.bincount(bins, weights=confidence, minlength=num_bins)
    correct_sums = np.bincount(bins, weights=correct.astype(np.float64), minlength=num_bins)
    return float(np.abs(correct_sums - confidence_sums).sum() / confidence.size)


def brier_score(
    probabilities: Float[np.ndarray, "N C"], targets: Float[np.ndarray, "N C"]
) -> float | None:
    r"""Mean of $\sum_c (p_c - y_c)^2$; lower is better, range [0, 2]; `None` for no example.

    Rows with fewer classes than C are padded with zeros on both sides, which adds nothing.
    """
    if len(probabilities) == 0:
        return None
    return float(np.square(probabilities - targets).sum(axis=1).mean())


def negative_log_likelihood(log_probability_of_truth: Float[np.ndarray, " N"]) -> float | None:
    r"""Mean of $-\log p(\text{truth})$ in nats; lower is better, range [0, inf)."""
    if log_probability_of_truth.size == 0:
        return None
    return float(-log_probability_of_truth.mean())
