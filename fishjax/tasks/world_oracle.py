r"""The best possible AUROC: how well correctness can be predicted by one who knows the world.

The gold answer of question i is drawn from known shares, so an answer c_i is correct with
probability $q_i = s_i[c_i]$. An oracle knows every $q_i$ and ranks the questions by it. Over all
draws of the gold answers, the AUROC (expected concordant over expected comparable pairs) is

$$A(q) = \frac{\sum_{i \ne j} q_i (1 - q_j) ([q_i > q_j] + \tfrac12 [q_i = q_j])}
              {\sum_{i \ne j} q_i (1 - q_j)}.$$

No score that does not peek at the gold answers has a larger one: ordering i before j earns
$q_i (1 - q_j)$, the other order $q_j (1 - q_i)$, and the first is larger exactly if $q_i > q_j$.
On one draw a score may exceed it by luck, so the oracle's realised AUROC on the gold answers
drawn is reported beside it.

Two policies are of interest: the answers *a model gave*, and the *best answers*, which are the
majority values.
"""

import numpy as np
from jaxtyping import Float, Int

__all__ = ["best_answers", "best_possible_auroc", "correctness_probability"]


def correctness_probability(
    shares: Float[np.ndarray, "N K"], chosen: Int[np.ndarray, " N"]
) -> Float[np.ndarray, " N"]:
    """The chance q, in [0, 1], that the chosen answer is the gold one.

    Args:
      shares: chance of each choice being gold; rows add up to 1.
      chosen: index of the answer given.

    Raises:
      ValueError: a row of shares does not add up to 1, or an index is out of range.
    """
    if not np.allclose(shares.sum(axis=1), 1):
        raise ValueError("the shares of every question must add up to 1")
    if not np.all((chosen >= 0) & (chosen < shares.shape[1])):
        raise ValueError(f"chosen answers must be below {shares.shape[1]}, got {chosen}")
    return shares[np.arange(len(chosen)), chosen]


def best_answers(shares: Float[np.ndarray, "N K"]) -> Int[np.ndarray, " N"]:
    """The majority value of every question (the first of two equal ones)."""
    return np.argmax(shares, axis=1)


def best_possible_auroc(probabilities: Float[np.ndarray, " N"]) -> float | None:
    """A(q) above, in [0.5, 1]: the oracle's AUROC over all draws of the gold answers.

    Args:
      probabilities: chance q of each given answer being correct.

    Returns:
      The AUROC, or None where correctness cannot vary (every q is 0, or every q is 1).

    Raises:
      ValueError: a probability is outside [0, 1] or not finite.
    """
    q = np.asarray(probabilities, np.float64)
    if not np.all((q >= 0) & (q <= 1)):
        raise ValueError("probabilities must lie in [0, 1]")
    levels, level_of = np.unique(q, return_inverse=True)
    size = np.bincount(level_of, minlength=len(levels)).astype(np.float64)
    # Pairs of questions by their levels; a question is not compared with itself.
    pairs = np.outer(size, size) - np.diag(size)
    weight = pairs * np.outer(levels, 1 - levels)
    total = weight.sum()
    if total == 0:
        return None
    concordant = np.tril(weight, -1).sum() + 0.5 * np.trace(weight)
    return float(concordant / total)
