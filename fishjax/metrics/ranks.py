"""Ranks with ties averaged, and the rank correlations built on them."""

import numpy as np
from jaxtyping import Float

__all__ = ["average_ranks", "partial_spearman", "spearman"]


def average_ranks(values: Float[np.ndarray, " N"]) -> Float[np.ndarray, " N"]:
    """Ranks 1 … N in ascending order; equal values share the mean of their ranks.

    `-inf` and `+inf` are ordinary values (the lowest and the highest).

    Raises:
      ValueError: a value is NaN, which has no rank.
    """
    if np.isnan(values).any():
        raise ValueError(
            f"{int(np.isnan(values).sum())} of {values.size} values are NaN and have no rank: "
            "leave those examples out before ranking"
        )
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2.0)[inverse.reshape(-1)]


def spearman(x: Float[np.ndarray, " N"], y: Float[np.ndarray, " N"]) -> float | None:
    """Spearman's rank correlation, in [-1, 1]; `None` when either side is constant or N < 2."""
    return _correlation(average_ranks(x), average_ranks(y))


def partial_spearman(
    x: Float[np.ndarray, " N"],
    y: Float[np.ndarray, " N"],
    covariates: Float[np.ndarray, "N C"],
) -> float | None:
    r"""Rank correlation of `x` and `y` with the covariates held fixed.

    Ranks everything, removes from the ranks of `x` and of `y` their least-squares fit on an
    intercept and the covariates' ranks, and correlates the residuals (Pearson). Range [-1, 1].

    Args:
      x: first variable.
      y: second variable.
      covariates: one column per variable to hold fixed; no column gives `spearman(x, y)`.

    Returns:
      The coefficient, or `None` where it is undefined: `x` or `y` is constant or wholly
      explained by the covariates (residuals at rounding level), or N < C + 3.
    """
    ranks_x, ranks_y = average_ranks(x), average_ranks(y)
    num_covariates = covariates.shape[1]
    if x.size < num_covariates + 3:
        return None
    columns = [average_ranks(covariates[:, i].astype(np.float64)) for i in range(num_covariates)]
    # Centring first makes the intercept exact and keeps the fit well conditioned.
    design = np.stack([np.ones(x.size), *[c - c.mean() for c in columns]], axis=1)
    return _correlation(_residual(ranks_x, design), _residual(ranks_y, design))


def _residual(ranks: np.ndarray, design: np.ndarray) -> np.ndarray:
    centred = ranks - ranks.mean()
    coefficients, *_ = np.linalg.lstsq(design, centred, rcond=None)
    residual = centred - design @ coefficients
    negligible = np.linalg.norm(residual) <= 1e-10 * max(float(np.linalg.norm(ranks)), 1.0)
    return np.zeros_like(residual) if negligible else residual


def _correlation(x: np.ndarray, y: np.ndarray) -> float | None:
    if x.size < 2:
        return None
    x, y = x - x.mean(), y - y.mean()
    scale = float(np.sqrt((x @ x) * (y @ y)))
    return None if scale == 0.0 else float(np.clip((x @ y) / scale, -1.0, 1.0))
