"""Selective prediction: what is gained by answering only where the model is confident."""

import numpy as np
from jaxtyping import Bool, Float

__all__ = ["aurc", "prediction_rejection_ratio"]


def aurc(confidence: Float[np.ndarray, " N"], correct: Bool[np.ndarray, " N"]) -> float | None:
    r"""Area under the risk–coverage curve: $\frac1N \sum_i$ (error rate of the i most confident).

    Ties are averaged exactly: inside a group of equal confidence every example counts with the
    group's mean error, which is the mean over all orders of the group. Lower is better, range
    [0, 1]; `None` for no example.

    References:
      Geifman and El-Yaniv (2017), Selective classification for deep neural networks.
    """
    if correct.size == 0:
        return None
    return float(_selective_risks(_tie_averaged_errors(confidence, correct)).mean())


def prediction_rejection_ratio(
    confidence: Float[np.ndarray, " N"], correct: Bool[np.ndarray, " N"]
) -> float | None:
    r"""$(A - A_\mathrm{random}) / (A_\mathrm{oracle} - A_\mathrm{random})$ of the accuracy areas.

    $A$ is 1 - AURC; random answering has the overall accuracy at every coverage and the oracle
    rejects every error first. 1 is the oracle, 0 random, negative worse than random. `None` at
    accuracy 0 or 1, where nothing can be ranked.
    """
    if correct.size == 0 or correct.all() or not correct.any():
        return None
    errors = (~correct).astype(np.float64)
    area = 1.0 - _selective_risks(_tie_averaged_errors(confidence, correct)).mean()
    random = 1.0 - errors.mean()
    oracle = 1.0 - _selective_risks(np.sort(errors)).mean()
    return float((area - random) / (oracle - random))


def _selective_risks(errors: np.ndarray) -> np.ndarray:
    return np.cumsum(errors) / np.arange(1, errors.size + 1)


def _tie_averaged_errors(confidence: np.ndarray, correct: np.ndarray) -> np.ndarray:
    """Expected error at each place, most confident first."""
    if np.isnan(confidence).any():
        raise ValueError("a confidence is NaN: leave those examples out before ranking")
    _, groups, counts = np.unique(-confidence, return_inverse=True, return_counts=True)
    errors = np.bincount(groups.reshape(-1), weights=(~correct).astype(np.float64))
    return np.repeat(errors / counts, counts)
